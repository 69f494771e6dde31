"""Module names of the original, for what it had for other libraries."""
