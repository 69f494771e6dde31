"""Names that programs of the original import from here; at home they are in `mars.remote`."""

from mars.remote import ExecutableTuple, Object

__all__ = ["ExecutableTuple", "Object"]
