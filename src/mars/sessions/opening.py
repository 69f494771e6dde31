"""Opening sessions, the default session, and the functions that use the default session.

`new_session` makes a session; `get_default_or_create` makes one if a call is executed and there is
none. Programs find all of this in `mars.session`, and most of it in `mars`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, cast

from mars.attempt import context
from mars.calls.options import parse_bytes
from mars.config import plain_scalar
from mars.engines import kinds, start
from mars.errors import MarsError, NotExecuted, UnknownTarget
from mars.sessions.opened import Opened
from mars.sessions.opened import opened as opened_here
from mars.settings import KIB, LOG_LIMIT_AT_LEAST
from mars.tracebacks import trim

if TYPE_CHECKING:
    from mars.engine import Engine
    from mars.logs import LogFetcher, Offsets
    from mars.sessions.replacing import Place
    from mars.sessions.session import AnySession, Session

opened: Final = cast("Opened[Session]", opened_here)

_NO_SESSION: Final = (
    "mars: No session found, local session will be created in background ({} cpus); "
    "mars.new_session(...) makes one as you want it"
)
"""Its beginning is that of the original's warning."""


class NoSession(UserWarning, ImportWarning):
    """There was no session, so one was made.

    Python shows no `ImportWarning` by itself, and nothing is wrong; people get a line instead. But
    programs that look for the original's warning find it.
    """


def new_session(
    address: str | None = None,
    session_id: str | None = None,
    backend: str = "mars",
    default: bool = True,
    new: bool = True,
    *,
    engine: str = "local",
    n_worker: int = 1,
    n_cpu: int | str = "auto",
    n_gpu: int | str = "auto",
    object_memory: int | str | None = None,
    spill_directory: str | os.PathLike[str] | None = None,
    log_limit: int | str | None = "1GiB",  # more than anybody reads, less than fills a disk
    seed: int | None = 0,
    timeout: float | None = None,
    checkpoint: str | os.PathLike[str] | bool | None = None,
    web: bool | Mapping[str, object] = False,
    security: object | None = None,
    env: Mapping[str, str] | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    node_ports: int | str | None = None,
    storage_options: Mapping[str, Mapping[str, object]] | None = None,
    **accepted: object,
) -> Session:
    """Start an engine, or join one, and make a session on it.

    Parameters
    ----------
    address : str, optional
        None: start an engine on this machine. The ``address`` of another session: join its engine.
        The address of a cluster: ``"http://host:web_port"`` as ``mars cluster up`` or
        ``mars-supervisor`` prints it; ``"tls://host:port"``, ``"tcp://host:port"`` or
        ``"dask://host:port"`` of a Dask scheduler; ``"ray://host:port"`` of a Ray client server;
        ``"ray"`` for the Ray on this host. With ``engine="dask"`` or ``"ray"`` it can also be what
        these call an address, such as ``"host:6379"``. Default: the environment variable
        ``MARS_ADDRESS``, which ``mars run`` sets, if no ``engine`` is named.
    session_id : str, optional
        Id of the session. Default: one is made up.
    backend : {"mars", "oscar"}, default "mars"
        The original has these two names for one thing. No other backend is there.
    default : bool, default True
        Whether the session becomes the default session.
    new : bool, default True
        False: return the open session of that ``address`` and ``session_id``, if there is one.
    engine : {"local", "inline", "dask", "ray"}
        "local": worker processes. "inline": calls run in the calling thread, for a debugger.
        "dask", "ray": worker processes on a cluster. Without an address, a cluster is started on
        this machine; it ends with the session.
    n_worker : int, default 1
        Number of groups that the workers are divided into. ``expect_worker=`` chooses a group.
    n_cpu : int or "auto"
        Cores that running calls share. "auto": the cores that this process may use.
    n_gpu : int or "auto"
        GPUs that calls with ``gpus=`` share, on this machine. "auto": as many as the environment
        variable ``MARS_GPUS`` says, else those that ``CUDA_VISIBLE_DEVICES`` names, else those that
        NVML finds (extra ``gpu``). They are looked for when a call first asks for one. Nodes of a
        cluster tell by themselves which ones they have.
    object_memory : int or str, optional
        Memory for large results and arguments of all processes together, in bytes or as ``"2GiB"``.
        Further ones go to disk until there is room again. Default: 40 % of the memory that this
        process may use.
    spill_directory : path, optional
        Folder on disk for these further ones. The files have no name. Default: ``TMPDIR``, or
        ``/var/tmp``.
    log_limit : int or str or None, default "1GiB"
        How much is kept of what one call prints, in bytes or as ``"10MiB"``, at least 256 KiB. For
        a map it holds for each block of items. If a call prints more, the middle is left out, and a
        line in the log says how much. None: all is kept.
    seed : int or None, default 0
        Seed of `mars.remote.rng`. None: different numbers each time.
    timeout : float, optional
        Seconds that one `execute` may take.
    checkpoint : path, URL or False, optional
        Folder where each result is kept as soon as it is there. The same program, run again, finds
        it and runs only what is missing. Default: the environment variable ``MARS_CHECKPOINT``. If
        that is not set, or with False, nothing is kept.
    web : bool or dict, default False
        True: a page shows the session while it runs, on this machine only; see `get_web_endpoint`
        for its address. It needs the extra ``web``. A dict says more: ``port`` (default: a free
        one), ``token`` (default: a random one), ``host`` (default ``"127.0.0.1"``), and
        ``certificate`` and ``key``, the paths of PEM files. Beyond loopback it listens only with a
        token and a certificate.
    security : object, optional
        Credentials for a cluster. The object has ``ca_path``, ``cert_path`` and ``key_path``, the
        paths of PEM files, and for Ray ``token``. Default: the credentials that this user has, if
        it is a cluster of ``mars cluster``.
    env : mapping of str to str, optional
        Environment variables of calls. Variables that the program changes later win.
    working_dir : path, optional
        Folder that calls run in and can import from. On this machine it is the folder itself. Each
        node of a cluster gets a copy of what is in it now, up to 256 MiB, without ``.git`` and the
        like; the copy is removed with the session. Default: where the program is.
    node_ports : int or str, optional
        Ports on which the nodes of a cluster listen, as ``7200`` or ``"7200-7219"``, for firewalls
        between the hosts. A node listens for this program while the session begins, and for another
        node when a large value first goes there. It takes the first port that is free. Sessions
        that begin at the same time, and nodes on one host, need a port each. Default: any port.
    storage_options : mapping, optional
        What calls open URLs with, by protocol, such as ``{"s3": {"key": …, "secret": …}}``: what
        fsspec takes for it. `mars.remote.open` and plain fsspec in calls use it, on every engine,
        and so does a checkpoint at a URL. It goes to workers through their sockets, and into no
        variable, file, log, checkpoint or ``repr``. It belongs to the engine, as ``env`` does.
    **accepted
        Further arguments of the original. ``cuda_devices``, such as ``[0, 1]``, names the GPUs, if
        ``n_gpu`` does not. Without effect are ``config``, ``init_local``, ``loop``, ``mem_bytes``,
        ``n_supervisor_process``, ``request_rewriter``, ``subprocess_start_method``, ``use_uvloop``.

    Returns
    -------
    Session

    Raises
    ------
    UnknownTarget
        The address, engine or backend is unknown (a ValueError).
    TypeError, ValueError
        An argument is wrong. The message names it.
    CredentialsError
        The credentials of a cluster are not here or expired, or other users could read them.
    ClusterUnreachable
        Nobody answers there (a ConnectionError).
    StartupFailed
        The system refuses to start processes. Or a cluster is not there, refuses this program, or
        has no node with the same versions and a free port of ``node_ports``.
    CheckpointBusy
        Another process writes to the checkpoint.
    CheckpointUnusable
        The folder is none for checkpoints (a ValueError).
    ImportError
        There is no page without the extra ``web``.
    UsageError
        An argument of ``web`` is unknown, or the page would be open to others.

    Notes
    -----
    Source: ``mars.new_session``; what differs is in docs/differences.md.

    Examples
    --------
    >>> import mars, mars.remote as mr
    >>> with mars.new_session(n_cpu=2):
    ...     mr.spawn(sum, args=([1, 2, 3],)).execute().fetch()
    6
    """
    unknown = accepted.keys() - _SESSION_ACCEPTED
    if unknown:
        raise TypeError(_unknown_argument(min(unknown)))
    if backend not in ("mars", "oscar"):
        raise UnknownTarget(f"backend {backend!r} is not there; this version has 'mars'")
    seed, timeout = plain_scalar(seed), plain_scalar(timeout)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise ValueError(f"seed has to be an int from 0 on, or None, got {seed!r}")
    log_bytes = None if log_limit is None else parse_bytes(log_limit, "log_limit")
    if log_bytes is not None and log_bytes < LOG_LIMIT_AT_LEAST:
        raise ValueError(
            f"log_limit has to be at least {LOG_LIMIT_AT_LEAST // KIB} KiB, or None for all of it, "
            f"got {log_limit!r}"
        )
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, Real)):
        raise TypeError(f"timeout has to be seconds, got {timeout!r}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout has to be more than 0 seconds, got {timeout!r}")
    if address is None and engine == "local" and context.current() is None:
        address = os.environ.get("MARS_ADDRESS") or None
    kind = kinds.KINDS.get(engine)
    is_far = kind in kinds.CLUSTERS or kinds.is_cluster(address)
    with opened.lock:
        known = opened.engines.get(address) if address is not None else None
        if known is not None:
            started = known[0]
            if not new and session_id is not None:
                for session in known[1]:
                    if session.session_id == session_id:
                        return session.as_default() if default else session
        elif isinstance(address, int):
            raise UnknownTarget(
                f"there is no engine at {address!r}; new_session(n_cpu={address!r}) says how many "
                f"cores calls share"
            )
        elif not (is_far or address in kinds.HERE):
            raise UnknownTarget(
                f"there is no engine at {address!r}; leave the address out to start one on this "
                f"machine, or pass the address of a session of this process, of a Dask scheduler "
                f"('tls://host:port', 'tcp://host:port' or 'dask://host:port') or of Ray "
                f"('ray://host:port'; 'ray' for the one on this host)"
            )
        else:
            is_own = address in kinds.HERE
            options = kinds.parse_options(
                env=env,
                working_dir=working_dir,
                node_ports=node_ports,
                object_memory=object_memory,
                spill_directory=spill_directory,
                security=security,
                cores=kinds.divide(n_cpu, n_worker) if is_own else (),
                n_gpu=n_gpu,
                cuda_devices=accepted.get("cuda_devices"),
                storage_options=storage_options,
            )
            try:
                started = start.engine(engine, None if is_own else address, options)
            except MarsError as error:
                # The error says what to do. Where in our files it was raised tells a user nothing.
                # What led to it, such as an error of Dask, stays in `__context__`.
                raise error.with_traceback(None) from None
            started.limit_logs(log_bytes)
            opened.engines[started.address] = (started, set())
            if is_far:
                # Ours has to be called before the handlers that Ray or Dask registered when they
                # were imported. What these end would look lost, and Ray ends a program that uses it
                # then, with status 1.
                atexit.unregister(opened.close)
                atexit.register(opened.close)
        # Late: they are loaded while the first process of an engine starts.
        from mars.sessions import replacing
        from mars.sessions.session import Session

        where = _where(checkpoint)
        try:
            storage = started.storage if where is not None and "://" in where else None
            with contextlib.nullcontext() if storage is None else storage.in_place():
                session = Session(
                    started,
                    session_id or os.urandom(12).hex(),
                    seed=seed,
                    timeout_s=timeout,
                    checkpoint=where,
                )
        except BaseException:
            if not opened.engines[started.address][1]:
                del opened.engines[started.address]
                started.close()
            raise
        opened.engines[started.address][1].add(session)
    from mars.web.desk import desk  # late: programs that only describe calls need none

    session.desk = desk
    desk.come(_answers)
    if web:
        _open_page(session, web)
    if default:
        session.as_default()
        if context.current() is None:
            replacing.made(session, _place_in_main() if address is None else None)
    return session


def _answers(asked: bytes) -> Iterator[bytes]:
    """What `mars calls` and the like are told by this program."""
    from mars.web.clerk import answers

    return answers(asked)


def _open_page(session: Session, web: bool | Mapping[str, object]) -> None:
    """Show a session in the browser. If that fails, the session ends."""
    try:
        from mars.observe.progress import write_line
        from mars.web.server import Page

        session.page = Page(session, web if isinstance(web, Mapping) else None)
    except BaseException:
        session.close()
        raise
    # The key goes to a terminal that somebody looks at, and never into a file of logs.
    if sys.stderr is not None and sys.stderr.isatty():
        write_line(f"mars: the page of this session is at {session.page.link}")


def _unknown_argument(name: str) -> str:
    from mars.calls.mistakes import unknown_argument

    code = new_session.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return unknown_argument("new_session", name, known)


def _place_in_main() -> Place | None:
    """Where the program's main module makes a session, outside of all functions."""
    frame = sys._getframe(2)
    if frame.f_code.co_name != "<module>" or frame.f_globals.get("__name__") != "__main__":
        return None
    return frame.f_code.co_filename, frame.f_lineno


def _where(checkpoint: object) -> str | None:
    """The checkpoint that was asked for, by argument or environment."""
    if checkpoint is not None:
        return None if checkpoint is False else os.fspath(cast("str", checkpoint))
    if context.current() is not None:  # inside a call: the result of that call is kept
        return None
    return os.environ.get("MARS_CHECKPOINT") or None


_SESSION_ACCEPTED: Final = frozenset(
    {
        "config", "cuda_devices", "init_local", "loop", "mem_bytes", "n_supervisor_process",
        "request_rewriter", "subprocess_start_method", "use_uvloop",
    }
)  # fmt: skip


def get_default_session() -> Session | None:
    """The default session. Inside a call it is the session that asked for the call."""
    attempt = context.current()
    if attempt is not None:
        return _session_of(attempt)
    session = opened.default
    return None if session is None or session.closed else session


def _session_of(attempt: context.Attempt) -> Session:
    from mars.sessions.session import Session  # late, as in `new_session`

    session = attempt.session
    if not isinstance(session, Session):
        engine = cast("Engine", attempt.engine)  # an attempt knows what calls ask of it, no more
        session = attempt.session = Session(engine, attempt.session_id, nested=True)
    return session


def get_default_or_create(**kwargs: Any) -> Session:
    """The default session. If there is none, a new one, and a line on stderr says so.

    Parameters
    ----------
    **kwargs
        As of `new_session`; for a new session.
    """
    session = get_default_session()
    if session is None:
        with opened.lock:
            session = get_default_session()
            if session is None:
                session = new_session(**kwargs)
                if not os.environ.get("MARS_ADDRESS"):  # else somebody has chosen where
                    _tell_of_session(session, _outside())
    return session


def _tell_of_session(session: Session, level: int) -> None:
    """Say that there was no session, in one line, and warn those who look for warnings."""
    from mars.observe.progress import tell

    line = _NO_SESSION.format(f"{session.engine.n_cpu:g}")
    with contextlib.suppress(Warning):  # the program makes errors of warnings
        warnings.warn(line, NoSession, stacklevel=level + 1)
    tell(line)


def _outside() -> int:
    """The stack level of the nearest caller that is not a part of mars."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(own):
        level, frame = level + 1, frame.f_back
    return level


def clear_default_session() -> None:
    """Have no default session any more. The session itself stays open."""
    opened.default = None


def stop_server() -> None:
    """End the engine of the default session, if there is one."""
    session = get_default_session()
    if session is not None:
        session.stop_server()


def get_context() -> context.Context | None:
    """What a running call can ask about itself. Outside of a call: None.

    Returns
    -------
    Context or None

    Examples
    --------
    >>> import mars.remote as mr
    >>> def where() -> str:
    ...     return get_context().session_id
    >>> mr.spawn(where).execute().fetch() == get_default_session().session_id
    True
    """
    attempt = context.current()
    if attempt is None:
        return None
    return context.Context(attempt, lambda: _session_of(attempt))


def choose(session: AnySession | None, **kwargs: object) -> Session:
    """The session given, or the default one."""
    if session is None:
        return get_default_session() or get_default_or_create(**kwargs)
    from mars.sessions.session import Session, SessionView  # late, as in `new_session`

    if isinstance(session, SessionView):
        return session.session
    if not isinstance(session, Session):
        raise TypeError(f"session has to be a Session, got {session!r:.80}")
    return session


def _existing(session: AnySession | None) -> Session:
    """The session to read from. To read never starts an engine."""
    if session is None:
        session = get_default_session()
        if session is None:
            raise NotExecuted(
                "the program", "has no session, so nothing was executed yet. Call execute() first"
            )
    return choose(session)


def execute(*objects: object, session: AnySession | None = None, **kwargs: Any) -> Any:
    """Execute objects in a session. Everything else is as of `Session.execute`.

    Parameters
    ----------
    objects : Object
        What to execute, or one list or tuple of them.
    session : Session, optional
        Default: the default session. If there is none, one is made, and a line says so.
    **kwargs
        As of `Session.execute`.

    Examples
    --------
    >>> import mars.remote as mr
    >>> one, two = execute(mr.spawn(abs, -1), mr.spawn(abs, -2))
    >>> fetch(one, two)
    [1, 2]
    """
    try:
        return choose(session).execute(*objects, **kwargs)
    except BaseException as error:
        trim(error)
        raise


def fetch(*objects: object, session: AnySession | None = None, **unknown: object) -> Any:
    """Fetch the values of executed objects. Everything else is as of `Session.fetch`.

    Parameters
    ----------
    objects : Object
        One or several, or one list or tuple of them. A single object gives its value.
    session : Session, optional
        Default: the default session.

    Raises
    ------
    TypeError
        There is another argument, such as ``timeout``: `fetch` never waits.
    """
    try:
        return _existing(session).fetch(*objects, **unknown)
    except BaseException as error:
        trim(error)
        raise


def fetch_infos(
    *objects: object, fields: Sequence[str] | None = None, session: AnySession | None = None
) -> Any:
    """Facts about stored results, such as their size.

    Parameters
    ----------
    objects : Object
        One or several, or one list or tuple of them.
    fields : sequence of str, optional
        Which facts: ``data_key``, ``object_id``, ``level``, ``memory_size``, ``store_size`` or
        ``bands``. Default: all of them.
    session : Session, optional
        Default: the default session.

    Returns
    -------
    dict or list of dict
        One object: its facts, each in a list with one item. Several objects: a list of these.
    """
    infos = _existing(session).fetch_infos(*objects, fields=fields)
    return infos[0] if len(infos) == 1 else infos


def fetch_log(
    *objects: object,
    session: AnySession | None = None,
    offsets: Offsets | None = None,
    sizes: Offsets | None = None,
) -> list[LogFetcher]:
    """The logs of objects, as a list. Everything else is as of `Session.fetch_log`.

    Parameters
    ----------
    objects : Object
        One or several, or one list or tuple of them.
    session : Session, optional
        Default: the default session.
    offsets, sizes : int, str, dict or list, optional
        See `mars.remote.Object.fetch_log`.
    """
    return _existing(session).fetch_log(*objects, offsets=offsets, sizes=sizes)


@contextlib.contextmanager
def default_session(session: Session) -> Iterator[Session]:
    """Have ``session`` as the default for a block.

    Parameters
    ----------
    session : Session
        The session. It stays open after the block, and the default from before comes back.
    """
    before = opened.default
    opened.default = session
    try:
        yield session
    finally:
        opened.default = before


# Programs find these in `mars.session`. So that is the name by which pickles and identities of
# calls know them.
for _function in (
    new_session, get_default_session, get_default_or_create, clear_default_session, stop_server,
    get_context, choose, execute, fetch, fetch_infos, fetch_log, default_session,
):  # fmt: skip
    _function.__module__ = "mars.session"

__all__ = [
    "choose", "clear_default_session", "default_session", "execute", "fetch", "fetch_infos",
    "fetch_log", "get_context", "get_default_or_create", "get_default_session", "new_session",
    "stop_server",
]  # fmt: skip
