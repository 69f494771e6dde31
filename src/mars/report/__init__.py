"""The report on the runs of a session: where time went, what would help, a timeline, what-if."""
