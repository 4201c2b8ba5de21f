"""Ways of sharing: ours, the best that was possible in hindsight, and our own reductions of what others publish."""
