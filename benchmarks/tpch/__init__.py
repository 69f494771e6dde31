"""TPC-H on mars.dataframe, pandas and dask.dataframe: ``python -m benchmarks.tpch``.

`queries` has the 22 queries, written once for all three. `tables` makes the data with tpchgen-cli,
and `__main__` runs, checks and times them.
"""
