"""Suites of others, run against mars; see docs/peers-suites.md."""
