"""What decides and acts in the program: one engine for the workers of one machine and of nodes."""
