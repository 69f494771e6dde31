"""Module names of the original that belong to machine learning."""
