"""What decides and acts in the program: the same for workers on this machine and on clusters."""
