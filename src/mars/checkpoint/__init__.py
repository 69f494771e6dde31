"""Checkpoints: results of calls on disk, and how a program that runs again finds them."""
