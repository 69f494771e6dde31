"""See `dask/__init__.pyi`."""

from collections.abc import Hashable, Iterator, Mapping

from dask._task_spec import GraphNode

class HighLevelGraph(Mapping[Hashable, GraphNode]):
    layers: Mapping[str, Mapping[Hashable, GraphNode]]

    def __getitem__(self, key: Hashable) -> GraphNode: ...
    def __iter__(self) -> Iterator[Hashable]: ...
    def __len__(self) -> int: ...
