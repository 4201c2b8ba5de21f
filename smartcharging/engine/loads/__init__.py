"""Controllable loads in the plan: what they may do, their part of the program, and a rule for when there is none."""
