"""Engines on the nodes of an existing cluster: what all of them share."""
