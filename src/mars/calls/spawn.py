"""Describing calls: `spawn`, `map` and `run_script`, and the errors that they raise.

`spawn` and `map` run nothing: they check what the program gave, pickle it, and return objects.
`run_script` describes calls in the same way and executes them at once. Programs import all three
from `mars.remote`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar, overload

from mars.attempt import call as attempt_call
from mars.attempt import codec
from mars.calls.objects import MapObjects, Object
from mars.calls.options import DEFAULT_OPTIONS, Options, check_function, parse_options
from mars.code import functions, places
from mars.config import is_eager, plain_scalar
from mars.errors import EncodeError
from mars.task import Call, Function

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mars.sessions.session import AnySession

_KINDS: Final = {
    "tensor": "mars.tensor.core:Tensor",
    "dataframe": "mars.dataframe.core:DataFrame",
    "df_or_series": "mars.dataframe.core:DataFrame",
    "series": "mars.dataframe.core:Series",
}
"""What a result is wrapped in, by ``output_types``. These are above this module, and are loaded
when a program asks for one."""

R = TypeVar("R")
T = TypeVar("T")

_NO_KWARGS: Final[dict[str, object]] = {}  # nobody changes it


@overload
def spawn(
    func: Callable[..., R],
    args: object = (),
    kwargs: Mapping[str, object] | None = None,
    retry_when_fail: bool = False,
    resolve_tileable_input: bool = False,
    n_output: None = None,
    **options: object,
) -> Object[R]: ...


@overload
def spawn(
    func: Callable[..., Iterable[T]],
    args: object = (),
    kwargs: Mapping[str, object] | None = None,
    retry_when_fail: bool = False,
    resolve_tileable_input: bool = False,
    *,
    n_output: int,
    **options: object,
) -> list[Object[T]]: ...


def spawn(
    func: Callable[..., object],
    args: object = (),
    kwargs: Mapping[str, object] | None = None,
    retry_when_fail: bool = False,
    resolve_tileable_input: bool = False,
    n_output: int | None = None,
    **options: object,
) -> Any:
    """Describe a call, to run later in another process. Nothing runs before `execute`.

    Parameters
    ----------
    func : callable
        Function, lambda, closure, partial, bound method, builtin, class or callable instance. A
        worker runs it as it is now, and with the modules and classes of the program as they are
        now.
    args : tuple or object, default ()
        Positional arguments. Anything but a tuple is one argument. An `Object` among them becomes
        an input, however deep in containers it is. Arguments are taken as they are now; large
        arrays are taken as they are when the call is executed.
    kwargs : dict, optional
        Keyword arguments. The same holds for them.
    retry_when_fail : bool, default False
        Retry up to three times, whatever the function raises.
    resolve_tileable_input : bool, default False
        True: tensors and frames among the arguments arrive as arrays of numpy and as frames of
        pandas. False: they arrive as tensors and frames that are executed. Other objects arrive as
        values in both cases.
    n_output : int, optional
        The result is an iterable of so many values. Each of them gets an object of its own.
    **options
        ``name`` (str): shown instead of the name of the function.
        ``cpus`` (float, default 1): cores that the call owns. Libraries in the call use so many
        threads. ``memory`` (bytes or "2GiB"): what the call may take beyond its inputs. If it takes
        more, it gets a `MemoryError`. ``gpus`` (number, default 0): GPUs that the call
        owns, such as 1, 2 or 0.5 of one; it sees them alone, in ``CUDA_VISIBLE_DEVICES``; refused
        where no group of workers has as many. ``gpu=True`` is ``gpus=1``.
        ``threads`` (int, default 0): for calls that wait. So many of them run at a time, as threads
        of one process, and take no cores; see docs/howto/waiting.md.
        ``timeout`` (float, seconds): limit for one attempt.
        ``retries`` (int, default 0), ``retry_on`` (exception class or tuple, default Exception):
        number of further attempts after such an exception.
        ``death_retries`` (int, default 3): number of further attempts after the worker died.
        ``idempotent`` (bool, default True): False: the call is not started again after its worker
        died. ``priority`` (int, default 0): calls with a higher one start first.
        ``cache`` (bool, default True): False: no checkpoint keeps the call.
        ``depends`` (any): what else the result depends on, for checkpoints.
        ``output_types`` (str or list of str): "tensor", "dataframe" or "series": the result is
        one, and is returned as one. ``expect_worker`` (str): address of the worker group to run in.
        Hints of the original are accepted without effect. docs/reference.md lists all options.

    Returns
    -------
    Object or list of Object
        A list of ``n_output`` objects when that is given.

    Raises
    ------
    EncodeError
        The function or an argument does not pickle. The message says where it is (a TypeError).
    TypeError
        ``func`` is not callable, ``kwargs`` is no dict, or an option has the wrong type.
    ValueError
        There is no such option (``Unexpected kw: <name>``; the message says what was most likely
        meant), or a value is out of range.

    Notes
    -----
    Source: ``mars.remote.spawn`` of Mars; what differs is in docs/differences.md. Each `spawn` is a
    call of its own: two with the same function and arguments run twice.

    Examples
    --------
    >>> total = spawn(sum, args=([spawn(abs, -1), spawn(abs, -2)],))
    >>> total.execute().fetch()
    3
    """
    check_function(func)
    if kwargs is None:
        kwargs = _NO_KWARGS
    elif not isinstance(kwargs, dict):
        given = (retry_when_fail, resolve_tileable_input, n_output)
        raise _not_kwargs(func, args, kwargs, given)
    if type(args) is not tuple:
        args = tuple(args) if isinstance(args, tuple) else (args,)
    if n_output is not None:
        _check_n_output(n_output)
        n_output = int(n_output)
    if retry_when_fail is not False or resolve_tileable_input is not False:
        if _flag(resolve_tileable_input, "resolve_tileable_input"):
            with places.whole_values():
                more: Any = {**options, "n_output": n_output}
                return spawn(func, args, kwargs, retry_when_fail, **more)
        retry_when_fail = _flag(retry_when_fail, "retry_when_fail")
    chosen = DEFAULT_OPTIONS
    if options or retry_when_fail:
        chosen = parse_options(
            options,
            retry_when_fail=retry_when_fail,
            unknown=lambda name: _unknown(func, name, args, kwargs, options),
        )
        if "retry_on" in options:
            pack_retry_on(chosen)
    described: object = func
    try:
        function = functions.describe(func, codec.Keep)
    except codec.HoldsObject:
        function, args, described = applied(func), (func, *args), None
    except Exception as error:
        raise function_error(func, chosen, error) from None
    try:
        payload, buffers, found = codec.encode_arguments(args, kwargs, function=described)
    except Exception as error:
        raise argument_error(args, kwargs, chosen.name or function.name, error) from None
    inputs = tuple([(output.call, output.index) for output in found]) if found else ()
    call = Call(function, payload, tuple(buffers) if buffers else (), inputs, chosen, n_output)
    if n_output is None:
        made: Object[object] = Object(call, 0)
        if is_eager():
            made.execute()
        return _wrapped([made], options["output_types"])[0] if "output_types" in options else made
    outputs: list[Object[object]] = [Object(call, index) for index in range(n_output)]
    if is_eager():
        outputs[0].execute()
    return _wrapped(outputs, options["output_types"]) if "output_types" in options else outputs


def _wrapped(outputs: list[Object[object]], kinds: object) -> Sequence[object]:
    """Objects, or the tensors and frames that ``output_types`` says they are."""
    if kinds is None:
        return outputs
    if not isinstance(kinds, (list, tuple)):
        kinds = [kinds] * len(outputs)
    elif len(kinds) == 1:
        kinds = list(kinds) * len(outputs)
    elif len(kinds) != len(outputs):
        raise ValueError(f"output_types names {len(kinds)} kinds for {len(outputs)} outputs")
    return [_as_kind(kind, one) for kind, one in zip(kinds, outputs, strict=True)]


def _as_kind(kind: str, one: Object[object]) -> object:
    if kind not in _KINDS:
        return one
    import importlib

    module, _, name = _KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), name)(objects=[one])


def applied(func: Callable[..., object]) -> Function:
    """The function to call with ``func``, which holds objects, as its first argument."""
    known = functions.describe(attempt_call.apply, codec.Keep)
    return Function(known.key, functions.name_of(func), known.data, known.buffers)


def _not_kwargs(func: object, args: object, kwargs: object, given: tuple[object, ...]) -> TypeError:
    from mars.calls import mistakes

    others = list(given)
    while others and others[-1] in (False, None):
        others.pop()
    return TypeError(mistakes.positional(func, args, kwargs, others))


def _unknown(
    func: Callable[..., object],
    name: str,
    args: object,
    kwargs: Mapping[str, object],
    options: dict[str, object],
    of_map: bool = False,
) -> str:
    from mars.calls import mistakes

    return mistakes.unknown_option(func, name, args, kwargs, options, of_map=of_map)


def pack_retry_on(chosen: Options) -> None:
    """Pickle the exceptions that are worth another attempt, for the workers.

    Raises
    ------
    EncodeError
        They do not pickle.
    """
    try:
        chosen.retry_data = codec.encode_in_band(chosen.retry_on)
    except Exception as error:
        raise attempt_call.encode_error(chosen.retry_on, "retry_on", "spawn", error) from None


def _flag(value: object, option: str) -> bool:
    flag = plain_scalar(value)
    if not isinstance(flag, bool):
        raise TypeError(f"{option} has to be True or False, got {value!r}")
    return flag


def _check_n_output(n_output: object) -> None:
    if isinstance(n_output, bool) or not isinstance(n_output, Integral):
        raise TypeError(f"n_output has to be an int, got {n_output!r}")
    if n_output < 1:
        raise ValueError(f"n_output has to be 1 or more, got {n_output!r}")


def function_error(
    func: Callable[..., object], chosen: Options, error: BaseException
) -> EncodeError:
    """The error about a function that does not pickle."""
    return attempt_call.encode_error(func, "func", chosen.name or functions.name_of(func), error)


def argument_error(
    args: tuple[object, ...], kwargs: Mapping[str, object], name: str, error: BaseException
) -> EncodeError:
    """The error about arguments that do not pickle. It says which."""
    for position, value in enumerate(args):
        found = _find(value, f"args[{position}]")
        if found is not None:
            return EncodeError(name, *found)
    for key, value in kwargs.items():
        found = _find(value, f"kwargs[{key!r}]")
        if found is not None:
            return EncodeError(name, *found)
    return EncodeError(name, "its arguments", f"{type(error).__name__}: {error}")


def _find(value: object, root: str) -> tuple[str, str] | None:
    from mars.attempt import diagnose

    return diagnose.find_unpicklable(value, root, lambda part: codec.encode_arguments((part,), {}))


def map(  # noqa: A001 (mars.remote.map)
    func: Callable[..., R], *iterables: Iterable[object], **options: object
) -> MapObjects[R]:
    """Describe one call for each item, like the builtin ``map``, but all of them at once.

    Small items are executed in blocks, so a million of them is no problem. Each item has a result,
    an error, a log and random numbers of its own all the same.

    Parameters
    ----------
    func : callable
        It is called with one argument from each iterable.
    *iterables : iterable
        The shortest one decides how many calls there are. Items may be objects, or hold some. Items
        are taken as they are now; large arrays are taken as they are when a worker gets them.
    **options
        As of `spawn`, for each item. ``retry_when_fail`` is among them.

    Returns
    -------
    MapObjects
        A sequence with one `Object` per item. It can be executed and fetched as a whole.

    Raises
    ------
    EncodeError
        The function or an item does not pickle (a TypeError).
    TypeError, ValueError
        As of `spawn`.

    Examples
    --------
    >>> squares = map(pow, range(5), [2] * 5).execute()
    >>> squares.fetch()
    [0, 1, 4, 9, 16]
    >>> squares[3].fetch()
    9
    """
    from mars.calls.maps import MapCall  # late: many programs have no map

    check_function(func)
    if not iterables or not all(isinstance(one, Iterable) for one in iterables):
        from mars.calls import mistakes

        raise TypeError(mistakes.no_iterable(func, iterables, options))
    retry_when_fail = _flag(options.pop("retry_when_fail", False), "retry_when_fail")
    chosen = parse_options(
        options,
        retry_when_fail=retry_when_fail,
        unknown=lambda name: _unknown(func, name, (), {}, options, of_map=True),
    )
    if "retry_on" in options:
        pack_retry_on(chosen)
    holder: tuple[Callable[..., object], ...] = ()
    try:
        function = functions.describe(func, codec.Keep)
    except codec.HoldsObject:
        function, holder = applied(func), (func,)
    except Exception as error:
        raise function_error(func, chosen, error) from None
    call = MapCall.over(function, chosen, iterables, holder)
    call.take(lambda args: argument_error(args, {}, call.name, TypeError()))
    made: MapObjects[R] = MapObjects(call)
    if is_eager():
        made.execute()
    return made


def run_script(
    script: str | os.PathLike[str] | IO[str] | IO[bytes],
    data: dict[str, Any] | None = None,
    n_workers: int = 1,
    command_argv: Sequence[str] | None = None,
    session: AnySession | None = None,
    retry_when_fail: bool = False,
    run_kwargs: Mapping[str, Any] | None = None,
) -> Object[dict[str, str]]:
    """Run a script at once, in ``n_workers`` copies.

    Parameters
    ----------
    script : path or file
        The script. A file can be one of text or of bytes.
    data : dict, optional
        Further globals of the script. It gets the values of the objects in here.
    n_workers : int, default 1
        Number of copies that run at the same time. The variables ``RANK`` and ``WORLD_SIZE`` tell
        each copy which one it is.
    command_argv : sequence of str, optional
        ``sys.argv[1:]`` of the script.
    session : Session, optional
        Default: the default session.
    retry_when_fail : bool, default False
        As of `spawn`.
    run_kwargs : dict, optional
        As of `Object.execute`.

    Returns
    -------
    Object
        Its value is ``{"status": "ok"}``.

    Raises
    ------
    TypeError
        ``data`` is no dict.
    BaseException
        The script's own error.

    Examples
    --------
    >>> import io
    >>> status = run_script(io.StringIO("print('value is', value)"), data={"value": 3})
    >>> print(status.fetch_log())
    value is 3
    <BLANKLINE>
    """
    from mars import script as scripts

    if data is not None and not isinstance(data, dict):
        raise TypeError(f"data has to be a dict, got {type(data).__name__}")
    n_workers = plain_scalar(n_workers)
    if isinstance(n_workers, bool) or not isinstance(n_workers, int) or n_workers < 1:
        raise ValueError(f"n_workers has to be an int from 1 on, got {n_workers!r}")
    text, name = scripts.read(script)
    copies = [
        spawn(
            scripts.run,
            args=(text, name, rank, n_workers, dict(data or {}), tuple(command_argv or ())),
            retry_when_fail=retry_when_fail,
            name=os.path.basename(name),
        )
        for rank in range(n_workers)
    ]
    # With one copy, its log is the log of the script. Several logs have to be joined.
    status = copies[0] if n_workers == 1 else spawn(scripts.status, args=(copies,))
    status.call.speaks_for = tuple(copies) if n_workers > 1 else ()
    status.execute(session=session, **(run_kwargs or {}))
    return status


# Programs find these in `mars.remote`. So that is the name by which pickles and identities of
# calls know them.
for _function in (spawn, map, run_script):
    _function.__module__ = "mars.remote"

__all__ = ["map", "run_script", "spawn"]
