"""The plan of a large site: one power for all cars, and a flow that shares it out."""
