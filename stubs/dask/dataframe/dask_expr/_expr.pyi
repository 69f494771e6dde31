"""See `dask/__init__.pyi`."""

from typing import ClassVar, Self

from mars.dataframe.protocols import Rows

class Expr:
    """A step of an expression. Subclasses name its operands, which are attributes then."""

    _parameters: ClassVar[list[str]]
    _defaults: ClassVar[dict[str, object]]
    _name: str
    frame: Expr
    ndim: int
    npartitions: int

    def __new__(cls, *args: object) -> Self: ...
    @property
    def _meta(self) -> Rows: ...
    def dependencies(self) -> list[Expr]: ...

class Elemwise(Expr): ...
class Projection(Expr): ...

def are_co_aligned(*exprs: Expr) -> bool: ...
def plain_column_projection(expr: Expr, parent: Expr, dependents: object) -> Expr | None: ...
