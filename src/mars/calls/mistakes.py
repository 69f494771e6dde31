"""What to say to a program that described a call in the wrong form.

Each function makes the text of an error, with the program's own arguments in the right form. Pure.
Loaded when somebody has made a mistake.
"""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches

from mars.calls.options import CHECKS

_OTHERWISE = {
    ("execute", "timeout"): (
        "spawn(..., timeout=60) limits one call, and execute(wait=False).result(timeout=60) how "
        "long you wait"
    ),
    ("execute", "n_jobs"): "mars.new_session(n_cpu=4) says how many cores calls share",
    ("execute", "threads"): "it is an option of a call: spawn(..., threads=50)",
    ("new_session", "n_jobs"): "n_cpu=4 says how many cores calls share",
    ("new_session", "max_workers"): "n_cpu=4 says how many cores calls share",
    ("new_session", "processes"): "n_cpu=4 says how many cores calls share",
    ("new_session", "threads"): (
        "it is an option of a call, as a session has calls that wait and calls that compute: "
        "spawn(..., threads=50), map(..., threads=50), @mars.remote(threads=50) or "
        "mars.Executor(50, threads=50)"
    ),
    ("new_session", "memory"): (
        "object_memory='2GiB' limits stored values, and spawn(..., memory='2GiB') one call"
    ),
}
"""What people look for where it is not, and where it is."""

_ELSEWHERE = {
    "result": "execute().fetch() gives its value",
    "get": "execute().fetch() gives its value",
    "compute": "execute().fetch() gives its value",
    "value": "execute().fetch() gives its value",
    "collect": "execute().fetch() gives its value",
    "run": "execute() runs it, and fetch() gives its value",
    "start": "execute(wait=False) starts it",
    "submit": "execute(wait=False) starts it",
    "wait": "execute() waits, and so does the future that execute(wait=False) gives",
    "done": "states() says how far it is",
    "status": "states() says how far it is",
    "state": "states() says how far it is",
    "running": "states() says how far it is",
    "error": "errors() has its error",
    "failed": "errors() has its error",
    "failures": "errors() has its error",
    "exception": "errors() has its error",
    "logs": "log is what it has printed",
    "output": "log is what it has printed",
    "stdout": "log is what it has printed",
    "shape": "it stands for a value that fetch() gives once it was executed",
}
"""What people look for at an object or a map, by the names that other libraries have for it."""

OF_OTHERS = {
    "init": "new_session(n_cpu=4), which a program may leave out",
    "Client": "new_session(n_cpu=4), which a program may leave out",
    "Session": "new_session(n_cpu=4), which a program may leave out",
    "shutdown": "stop_server(), or nothing: all ends with the program",
    "get": "fetch(...), after execute(...)",
    "compute": "execute(...), then fetch(...)",
    "gather": "execute(...), then fetch(...)",
    "wait": "execute(...), or as_completed(...)",
    "submit": "spawn(f, args=(1, 2)), then execute(); or mars.Executor",
    "delayed": "spawn(f, args=(1, 2)), or @mars.remote",
    "starmap": "map(f, [1, 2], [3, 4]), with one list for each argument",
    "imap": "as_completed(map(f, items))",
    "imap_unordered": "as_completed(map(f, items))",
    "apply": "run(f, 1, 2)",
    "call": "run(f, 1, 2)",
    "Pool": "mars.Executor(4)",
    "ProcessPoolExecutor": "mars.Executor(4)",
    "ThreadPoolExecutor": "mars.Executor(50, threads=50)",
    "Parallel": "map(f, items); and import mars.joblib runs joblib on mars",
    "apply_async": "spawn(f, args=(1, 2)), then execute(wait=False); or mars.Executor",
    "cancel": "cancel() of an object, or of the run that execute(wait=False) gives",
    "close": "stop_server(), or nothing: all ends with the program",
    "set_progress": "get_context().set_progress(0.5), inside a call",
    "progress": "progress() of the run that execute(wait=False) gives",
    "states": "states() of an object, a tuple or a map",
    "Future": "what execute(wait=False) gives, or mars.CallFuture",
}
"""What people look for in `mars` and `mars.remote`, as other libraries have it, and what it is."""

_OF_FUTURES = {
    "fetch": "result() waits for its value",
    "get": "result() waits for its value",
    "value": "result() waits for its value",
    "logs": "log is what it has printed",
    "stdout": "log is what it has printed",
}
"""What people look for at the future of an executor's call."""

_OF_RUNS = {
    "fetch": "result() waits for it, and result().fetch() gives the values",
    "get": "result() waits for it, and result().fetch() gives the values",
    "wait": "result() waits for it",
    "join": "result() waits for it",
    "states": "counts() says how far it is",
    "status": "counts() says how far it is",
    "stop": "cancel() stops it",
    "kill": "cancel() stops it",
    "log": "each of its objects has a log",
    "fetch_log": "each of its objects has a log",
    "errors": "each of its objects has errors()",
}
"""What people look for at a run, which ``execute(wait=False)`` gives."""

_OF_EXECUTORS = {
    "starmap": "map(f, [1, 2], [3, 4]), with one list for each argument",
    "imap": "map(f, items), which gives results as they are asked for",
    "imap_unordered": (
        "concurrent.futures.as_completed([executor.submit(f, item) for item in items])"
    ),
    "apply": "submit(f, 1, 2).result()",
    "apply_async": "submit(f, 1, 2)",
    "map_async": "submit(f, item) for each item",
    "spawn": "submit(f, 1, 2)",
    "close": "shutdown()",
    "join": "shutdown(), which waits",
    "terminate": "shutdown(cancel_futures=True)",
}
"""What people look for at an executor, as pools of `multiprocessing` have it."""

_OF_FUNCTIONS = {
    "remote": "spawn(1, 2) describes a call, and run(1, 2) makes it",
    "delay": "spawn(1, 2) describes a call, and run(1, 2) makes it",
    "submit": "spawn(1, 2) describes a call, and run(1, 2) makes it",
    "apply_async": "spawn(1, 2) describes a call, and run(1, 2) makes it",
    "execute": "spawn(1, 2).execute() runs it",
    "starmap": "map([1, 2], [3, 4]), with one list for each argument",
}
"""What people look for at a function with ``@mars.remote``, as Ray, Celery and Dask have it."""

_KINDS = {
    "CallFuture": _OF_FUTURES,
    "Execution": _OF_RUNS,
    "Executor": _OF_EXECUTORS,
    "RemoteFunction": _OF_FUNCTIONS,
}

_OPTIONS = {
    **dict.fromkeys(("retry", "tries", "attempts", "num_retries"), "retries"),
    **dict.fromkeys(("n_retries", "max_retries", "max_tries"), "retries"),
    **dict.fromkeys(("num_cpus", "n_cpu", "n_cpus", "ncpus", "cores"), "cpus"),
    **dict.fromkeys(("num_gpus", "n_gpu", "n_gpus"), "gpus"),
    **dict.fromkeys(("mem", "memory_limit", "max_memory", "ram"), "memory"),
    **dict.fromkeys(("time_limit", "timelimit", "max_time"), "timeout"),
    **dict.fromkeys(("n_threads", "num_threads", "max_threads", "nthreads"), "threads"),
    **dict.fromkeys(("processes", "n_jobs", "workers", "n_workers"), "max_workers"),
}
"""What other libraries call an option, and what it is here, if the function has that."""

_BLOCKS = ("chunksize", "chunk_size", "batch_size")
"""What other libraries call the number of items that travel together."""

_OF_EXECUTE = (
    "wait", "on_error", "echo", "show_progress", "seed", "checkpoint", "report", "session",
)  # fmt: skip
"""What people give to the description of a call, and `execute` takes."""

_FURTHER = ("retry_when_fail", "resolve_tileable_input", "n_output")


def _short(value: object) -> str:
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 40
    text = shown.repr(value)
    return f"<{type(value).__name__}>" if "\n" in text else text  # a frame, or a list of frames


def _name(func: object) -> str:
    if isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__name__", "")
    return name if name.isidentifier() else "func"


def _tuple(values: Sequence[object]) -> str:
    inside = ", ".join(map(_short, values))
    return f"({inside},)" if len(values) == 1 else f"({inside})"


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that was most likely meant; "": none is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def positional(func: object, args: object, kwargs: object, others: Sequence[object]) -> str:
    """For ``spawn(f, 1, 2)``: the arguments of the function belong into one tuple.

    Parameters
    ----------
    func, args, kwargs : object
        What `spawn` got under these names.
    others : sequence of object
        What it got in the places behind them.
    """
    if isinstance(args, tuple):
        return (
            f"kwargs has to be a dict, got {_short(kwargs)}; keyword arguments of {_name(func)} go "
            f"there by name: spawn({_name(func)}, args={_tuple(args)}, kwargs={{'name': value}})"
        )
    given = [args, kwargs, *others]
    return (
        f"kwargs has to be a dict, got {_short(kwargs)}; arguments of {_name(func)} go into one "
        f"tuple: spawn({_name(func)}, args={_tuple(given)})"
    )


def _takes(func: Callable[..., object], name: str) -> bool:
    """Whether a function has a parameter of that name, or takes any."""
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):  # compiled code without a signature
        return False
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return True
    return name in parameters


def _meant(name: str, known: Collection[str]) -> str:
    """The option that was most likely meant; "": none is near."""
    other = _OPTIONS.get(name, "")
    return other if other in known else nearest(name, known)


def unknown_keyword(name: str, value: object, further: Iterable[str] = ()) -> str:
    """For ``mars.Executor(retry=2)``: the option that was most likely meant.

    Parameters
    ----------
    name, value : str, object
        The keyword that is no option, and what it was given.
    further : iterable of str, default ()
        Parameters that are there besides the options of calls.
    """
    meant = _meant(name, [*further, *CHECKS])
    hint = f"; did you mean {meant}={_short(value)}?" if meant else ""
    return f"Unexpected kw: {name}{hint}"


def unknown_option(
    func: Callable[..., object],
    name: str,
    args: object,
    kwargs: Mapping[str, object],
    options: Mapping[str, object],
    *,
    of_map: bool = False,
) -> str:
    """For ``spawn(f, x=1)`` and ``spawn(f, cpu=2)``: where ``x`` belongs, or the option meant.

    Parameters
    ----------
    func : callable
        The function to call.
    name : str
        The keyword that is no option.
    args, kwargs, options : object
        What `spawn` or `map` was given.
    of_map : bool, default False
        It was `map`.
    """
    text = f"Unexpected kw: {name}"
    known = [*CHECKS, *_FURTHER]
    meant = _meant(name, known)
    if of_map and name in ("args", "kwargs") and not _takes(func, name):
        return f"{text}; {_arguments_of_map(_name(func), name, options[name])}"
    if not _takes(func, name):
        if name in _OF_EXECUTE:
            return f"{text}; it belongs to execute: execute({name}={_short(options[name])})"
        if of_map and name in _BLOCKS:
            return f"{text}; leave it out: map puts small items into blocks by itself"
        if meant:
            return f"{text}; did you mean {meant}={_short(options[name])}?"
        return f"{text}; {_name(func)} has no parameter {name}, and options are {', '.join(CHECKS)}"
    own = {one: value for one, value in options.items() if one not in known and _takes(func, one)}
    called = _name(func)
    if of_map:
        inside = ", ".join(f"{one}={_short(value)}" for one, value in own.items())
        return (
            f"{text}; arguments of {called} that are the same for all items go into a partial: "
            f"map(functools.partial({called}, {inside}), ...)"
        )
    inside = ", ".join(f"{one!r}: {_short(value)}" for one, value in {**kwargs, **own}.items())
    before = f"args={_tuple(args)}, " if isinstance(args, tuple) and args else ""
    if not isinstance(args, tuple):
        before = f"args={_tuple([args])}, "
    return (
        f"{text}; keyword arguments of {called} go into kwargs: "
        f"spawn({called}, {before}kwargs={{{inside}}})"
    )


def _arguments_of_map(called: str, name: str, given: object) -> str:
    """Where that goes in `map` which `spawn` takes as ``args`` and ``kwargs``."""
    if name == "args" or not isinstance(given, Mapping):
        return f"what map goes over follows the function: map({called}, items)"
    inside = ", ".join(f"{one}={_short(value)}" for one, value in given.items())
    return (
        f"arguments of {called} that are the same for all items go into a partial: "
        f"map(functools.partial({called}, {inside}), ...)"
    )


def no_iterable(func: object, given: Sequence[object], options: Mapping[str, object]) -> str:
    """For ``map(f, 3)`` and ``map(f)``: what `map` takes."""
    called = _name(func)
    for one in given:
        if not isinstance(one, Iterable):
            return (
                f"map takes iterables, got {_short(one)}; map({called}, [1, 2, 3]) calls {called} "
                f"three times, and run({called}, {_short(one)}) once"
            )
    hint = f"; {_arguments_of_map(called, 'args', None)}" if "args" in options else ""
    return f"map() must have at least one iterable{hint}"


def no_attribute(kind: str, name: str) -> str:
    """For a name that an object does not have: what to write for what others call so."""
    text = f"{kind!r} object has no attribute {name!r}"
    found = _KINDS.get(kind, _ELSEWHERE).get(name)
    return text if found is None else f"{text}; {found}"


def missing(one: object, name: str) -> AttributeError:
    """The error for a name that an object does not have."""
    # Libraries look for names with underscores: they get the plain text.
    kind = type(one).__name__
    plain = f"{kind!r} object has no attribute {name!r}"
    text = plain if name.startswith("_") else no_attribute(kind, name)
    return AttributeError(text, name=name, obj=one)


def no_name(module: str, name: str) -> str:
    """For a name that a module of ours does not have: what it is here."""
    text = f"module {module!r} has no attribute {name!r}"
    found = OF_OTHERS.get(name)
    return text if found is None else f"{text}; here it is {found}"


def unknown_argument(function: str, name: str, known: Iterable[str], advice: str = "") -> str:
    """For a keyword that a function of ours does not have.

    Parameters
    ----------
    function : str
        The function, such as ``"execute"``.
    name : str
        The keyword.
    known : iterable of str
        The keywords that it has.
    advice : str, default ""
        What to do, if it can be said.
    """
    meant = nearest(name, known)
    hint = f"; did you mean {meant}?" if meant and not advice else ""
    if (function, name) in _OTHERWISE:
        hint = f"; {_OTHERWISE[function, name]}"
    return f"{function}() got an unexpected keyword argument {name!r}{hint}{advice}"


__all__ = [
    "OF_OTHERS", "missing", "nearest", "no_attribute", "no_iterable", "no_name", "positional",
    "unknown_argument", "unknown_keyword", "unknown_option",
]  # fmt: skip
