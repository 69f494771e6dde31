"""What an engine tells of itself, and who shows it to people.

The table of attempts, in which each call is noted that ends, progress, states, silent calls and
events. Reports are in `mars.report`. Nothing here runs a call.
"""
