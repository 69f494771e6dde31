"""What people see of a run: its table of attempts, and views of it. Nothing here runs a task."""
