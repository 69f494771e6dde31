"""Engines: where calls run. `inline` in the calling thread, `local` in worker processes."""
