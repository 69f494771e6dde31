"""The embedded engine: worker processes on this machine, no server, no port."""
