"""The worker process: it takes calls from its driver, runs them and reports how they ended."""
