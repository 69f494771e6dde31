"""A small world around the scheduler in virtual time: workers, messages, a program and faults."""
