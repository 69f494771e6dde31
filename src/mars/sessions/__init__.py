"""What is behind `mars.session`: sessions, their runs, and the sessions that a program has open."""
