"""Names that programs of the original import from here; at home they are elsewhere."""

from mars.attempt.context import Context
from mars.session import get_context

__all__ = ["Context", "get_context"]
