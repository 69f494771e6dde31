"""What people see of a run: views of facts that others collect. Nothing here runs a task."""
