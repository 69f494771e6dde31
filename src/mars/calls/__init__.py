"""Calls as a program describes them, and the objects that stand for their results."""
