"""Speed and memory as ratios against named peers in the same run. Never part of the product."""
