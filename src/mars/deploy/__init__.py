"""Clusters: on Ray or Dask (`clusters`), on `kubernetes`, and in jobs of Slurm (`slurm`)."""
