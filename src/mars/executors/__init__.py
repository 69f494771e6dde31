"""`mars.Executor`: the calls of programs that were written for `concurrent.futures`."""
