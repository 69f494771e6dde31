"""The worker processes of one machine: no server, no port. Drivers and nodes use the same ones."""
