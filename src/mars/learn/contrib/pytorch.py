"""Scripts of PyTorch in several copies that know of each other: `run_pytorch_script`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

from mars.calls.objects import Object
from mars.calls.spawn import spawn
from mars.script import read, run
from mars.script import status as status_of

if TYPE_CHECKING:
    from mars.sessions.session import AnySession


def run_pytorch_script(
    script: str | os.PathLike[str] | IO[Any],
    n_workers: int,
    data: dict[str, object] | None = None,
    gpu: bool | None = None,
    command_argv: Sequence[str] | None = None,
    retry_when_fail: bool = False,
    session: AnySession | None = None,
    run_kwargs: dict[str, object] | None = None,
    port: int | None = None,
) -> Object[dict[str, str]]:
    """Run a script at once in ``n_workers`` copies, for `torch.distributed` on this machine.

    Each copy has the variables ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``, so
    ``torch.distributed.init_process_group("gloo")`` joins them.

    Parameters
    ----------
    script : path or file
        The script.
    n_workers : int
        Number of copies. All of them run at the same time, so the session needs so many cores.
    data : dict, optional
        Further globals of the script.
    gpu : bool, optional
        Refused if true.
    command_argv : sequence of str, optional
        ``sys.argv[1:]`` of the script.
    retry_when_fail : bool, default False
        As of `mars.remote.spawn`.
    session : Session, optional
        Default: the default session.
    run_kwargs : dict, optional
        As of `mars.remote.Object.execute`.
    port : int, optional
        On which the first copy listens, on the loopback address. Default: a free one.

    Returns
    -------
    Object
        Its value is ``{"status": "ok"}``.

    Raises
    ------
    TypeError
        ``n_workers`` is no number, or ``data`` is no dict.
    ValueError
        ``n_workers`` is below 1.
    NotImplementedError
        ``gpu`` is true.
    """
    if isinstance(n_workers, bool) or not isinstance(n_workers, int):
        raise TypeError(f"n_workers has to be an int, got {n_workers!r}")
    if n_workers < 1:
        raise ValueError("n_workers should be at least 1")
    if data is not None and not isinstance(data, dict):
        raise TypeError(f"data has to be a dict, got {type(data).__name__}")
    if gpu:
        raise NotImplementedError("GPUs are not there; leave gpu= away")
    text, name = read(script)
    chosen = _free_port() if port is None else int(port)
    copies = [
        spawn(
            _run,
            (chosen, text, name, rank, n_workers, dict(data or {}), tuple(command_argv or ())),
            retry_when_fail=retry_when_fail, name=os.path.basename(name),
        )
        for rank in range(n_workers)
    ]  # fmt: skip
    made: Object[dict[str, str]] = spawn(status_of, args=(copies,))
    made.call.speaks_for = tuple(copies)
    execute: Callable[..., object] = made.execute
    execute(session=session, **(run_kwargs or {}))
    return made


def _run(
    port: int, text: str, name: str, rank: int, n_workers: int, data: dict[str, object],
    command_argv: tuple[str, ...],
) -> object:  # fmt: skip
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    return run(text, name, rank, n_workers, data, command_argv)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


__all__ = ["run_pytorch_script"]
