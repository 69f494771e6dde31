"""What surrounds the user's function wherever it runs, in every engine.

Worker processes import these modules when they start, so heavy imports wait until their first use.
"""
