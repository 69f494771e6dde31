"""See `dask/__init__.pyi`."""

class RandomState:
    def __init__(self, seed: object = ...) -> None: ...
