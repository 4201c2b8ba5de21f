"""The live layer: every few seconds, what each car may take now, on every phase of every circuit above it."""
