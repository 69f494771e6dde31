"""`put`: a value of the program, stored once for all the calls that read it.

The value gets an `Object` like those of `spawn`. So calls take it as an input, deep in containers
too, and whoever reads an object reads this one. Programs import `put` from `mars` or
`mars.remote`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mars.calls.held import HeldCall
from mars.calls.objects import Object
from mars.errors import EncodeError
from mars.sessions.opening import choose

if TYPE_CHECKING:
    from mars.sessions.session import AnySession

T = TypeVar("T")


def put(value: T, session: AnySession | None = None) -> Object[T]:
    """Store a value once, for all calls and all runs of a session. No call runs for it.

    A large array that is an argument of several runs is stored anew by each run, and a list of
    small things is pickled anew for each call. What `put` returns is stored when it is made. Each
    call that has it as an argument gets the value: on one machine large arrays are mapped there, on
    a cluster each node gets them once.

    Parameters
    ----------
    value : object
        Taken as it is now: later changes of it are not seen. It must pickle, and hold no `Object`.
    session : Session, optional
        The session that stores it. Default: the default session; if there is none, one is made,
        with a warning. Inside a call: the session of the call.

    Returns
    -------
    Object
        It needs no `execute`. As an argument of `spawn` or `map`, however deep in containers, it
        stands for the value; each call gets a value of its own, which it may change. `fetch` gives
        the value back. The memory is given back once the last such object has gone, and no call
        needs it any more. Inside a call that is when the call has ended. In another session the
        value is stored once more, as long as the first session is open.

    Raises
    ------
    EncodeError
        The value does not pickle. The message says which part of it (a TypeError).
    StoreFull
        There is no room for it, neither in memory nor on disk.
    SessionClosed
        The session was closed.
    TypeError
        ``session`` is no session.

    Notes
    -----
    A checkpoint knows a call by the content of the values that it was given with `put`. So a
    program that puts equal values finds its results again.

    Examples
    --------
    >>> table = put({"a": 1, "b": 2})
    >>> import mars.remote as mr
    >>> mr.map(lambda key, table: table[key], "ab", [table] * 2).execute().fetch()
    [1, 2]
    """
    chosen = choose(session)
    call = HeldCall(chosen.realm)
    made: Object[T] = Object(call, 0)
    try:
        call.hold(chosen.realm, value)
    except EncodeError as error:
        where = error.where.removeprefix("result")
        raise EncodeError("put()", "the value" + where, error.reason) from None
    return made


__all__ = ["put"]
