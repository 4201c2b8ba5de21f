"""A charge explained: why this current now, what is promised, what limits it, and what would help."""
