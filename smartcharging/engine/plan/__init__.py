"""The plan: the coming day as a linear program, solved within a certified gap, and judged by other arithmetic."""
