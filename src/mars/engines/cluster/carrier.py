"""What a foreign engine has to do for us: start our nodes, carry bytes, say who came and left.

A *node* is a process of the foreign engine in which `mars.engines.cluster.node` serves. Between
it and the driver go messages, tuples whose first item says what they are, in both directions in
order and at most once. Everything else, such as what runs where and what becomes of it when a
node is lost, is decided by the scheduler in the driver, the same as on one machine.

::

    driver ──(here, keep, folder, fork, data, control, signal, lend, bytes, freed, …)──► node
    driver ◄──(hello, started, ended, data, arena, early, bytes, arrived, log, got, …)───── node
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import pickle
import platform as system
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeGuard

from mars import platform
from mars._version import __version__
from mars.engines.local.process import patiently
from mars.settings import SHIP_BYTES

if TYPE_CHECKING:
    import ssl

    from mars.task import Stored


FORK: Final = "fork"  # worker, facts: start a process
DATA: Final = "data"  # worker, whether it is records, content: a frame of the worker's socket
CONTROL: Final = "control"  # worker, content: a frame of its control socket
SIGNAL: Final = "signal"  # worker, signal, attempt: 0, or the one that is to be interrupted
LEND: Final = "lend"  # worker, arena, size, where the driver has it open: let it map that
BYTES: Final = "bytes"  # arena, its size, offset, bytes
FOLDER: Final = "folder"  # size of all, offset, bytes: the program's folder, see `folder`
HERE: Final = "here"  # first of all: this is the way that the driver has chosen
KEEP: Final = "keep"  # the driver reads this node's arenas where they are: send no bytes of them
FREED: Final = "freed"  # arena, offset, length: nobody reads that any more
HURRY: Final = "hurry"  # attempt: its value, which was told of early, is waited for
DROP: Final = "drop"  # attempt: nobody will read its value, which was told of early
GONE: Final = "gone"  # arena: nothing in it is asked for any more
OPEN: Final = "open"  # meeting, key: open a door for another node, see `peers`
MEET: Final = "meet"  # meeting, place, key: go to the door of another node
PART: Final = "part"  # meeting: expect nothing of that node any more
GET: Final = "get"  # meeting, attempt, arena, its size, offset, length: have that from the node
UNGET: Final = "unget"  # arena, offset: nobody will read what was to be had there
HAND: Final = "hand"  # attempt, arena, offset, length: send this copy, as its maker is lost
WHERE: Final = "where"  # where the program is by now: where does the node not follow it?
NEED: Final = "need"  # question, packages, the program's path: which of them are missing?
ASK_STACK: Final = "ask stack"  # question, worker: what does it do now?
ASK_USAGE: Final = "ask usage"  # question: what do all workers of the node use?
ASK_CLOCK: Final = "ask clock"  # the driver's clock, ns: what does the node's show?

HELLO: Final = "hello"  # what a node is, see `node_facts`
STARTED: Final = "started"  # worker, process id
ENDED: Final = "ended"  # worker, status, KiB, note, memory ran out, attempt, where its log starts
ARENA: Final = "arena"  # worker, arena, size, where the node has it open: it has made one
EARLY: Final = "early"  # attempts: what is told of them next comes before the bytes of their values
ARRIVED: Final = "arrived"  # attempts: now these are there, too
LOG: Final = "log"  # worker, more of what it has printed, attempt, where the log of that starts
OPENED: Final = "opened"  # meeting, where its door is: None, there is none
PARTED: Final = "parted"  # meeting: it has no line to that node, or none any more
GOT: Final = "got"  # arena, offset, bytes that came from another node, whether it is all
APART: Final = "apart"  # where the node does not follow the program, a line for each place
STACK: Final = "stack"  # question, what the worker does and its stack, a line for each frame
USAGE: Final = "usage"  # question, by worker: the moment, processor seconds, bytes of memory
LACK: Final = "lack"  # question, packages that are missing
CLOCK: Final = "clock"  # what the driver said as it asked, the node's clock, ns
BROKEN: Final = "broken"  # why the node ends itself

Facts = dict[str, Any]
"""What a node, or the program, tells of itself."""

Message = tuple[Any, ...]


class File:
    """A descriptor of our own to a file, closed with its last user."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = os.dup(descriptor)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # At the end of a program the names of modules may be gone.
        if hasattr(self, "descriptor"):  # else there was none left
            close(self.descriptor)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from a place in it; what was never written is zeros."""
        _read_into(self.descriptor, buffer, offset)


class Copy:
    """A part of a file in memory, where no descriptor is left for a `File`."""

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self._data = memoryview(bytearray(length))
        self._offset = offset
        _read_into(descriptor, self._data, offset)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """As that of a `File`."""
        start = offset - self._offset
        buffer[:] = self._data[start : start + len(buffer)]


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        count = patiently(os.preadv, descriptor, [buffer[done:]], offset + done)
        if not count:
            buffer[done:] = bytes(len(buffer) - done)
            return
        done += count


def readable(descriptor: int, offset: int, length: int) -> File | Copy:
    """A part of a file, to be read later, whatever becomes of the descriptor."""
    try:
        return File(descriptor)
    except OSError:
        return Copy(descriptor, offset, length)


class Part:
    """A part of a file as the end of a message, read when its turn has come.

    Parameters
    ----------
    file : File or Copy
        Where it is.
    begin : tuple
        The message up to the offset.
    offset, length : int
        Which part.
    """

    __slots__ = ("begin", "file", "length", "offset")

    def __init__(self, file: File | Copy, begin: Message, offset: int, length: int) -> None:
        self.file, self.begin, self.offset, self.length = file, begin, offset, length

    def __call__(self) -> Message:
        data = bytearray(self.length)
        self.read_into(memoryview(data), self.offset)
        return *self.begin, self.offset, pickle.PickleBuffer(data)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from a place in the file; what was never written is zeros."""
        self.file.read_into(buffer, offset)


def parts(file: File | Copy, begin: Message, offset: int, length: int) -> Iterator[Part]:
    """A part of a file in messages of a size that others do not wait behind for long."""
    for position in range(offset, offset + length, SHIP_BYTES):
        yield Part(file, begin, position, min(SHIP_BYTES, offset + length - position))


Item = Message | Part
"""A message, or what makes one once it is its turn: large ones are not made before."""


def next_messages(
    queue: deque[Item], most: int, until: Callable[[Item], bool] = lambda _: False
) -> list[Message]:
    """Take messages from a queue up to about ``most`` bytes, or to an item that is to stay."""
    batch: list[Message] = []
    size = 0
    while queue and size < most and not until(queue[0]):
        batch.append(made(queue.popleft()))
        size += size_of(batch[-1])
    return batch


def made(item: Item) -> Message:
    """An item as the message that it is."""
    return item() if isinstance(item, Part) else item


def size_of(message: Message) -> int:
    """Bytes of the large parts of a message."""
    size = 0
    for part in message:
        if type(part) is bytes:
            size += len(part)
        elif type(part) is pickle.PickleBuffer:
            size += part.raw().nbytes
    return size


def stored_values_in(message: object) -> Iterator[Stored]:
    """The stored values anywhere in a message."""
    pending = [message]
    while pending:
        one = pending.pop()
        if _is_stored(one):
            yield one
        elif type(one) in (tuple, list):
            pending.extend(one)  # type: ignore[arg-type]


def _is_stored(one: object) -> TypeGuard[Stored]:
    if type(one) is not tuple or len(one) != 5 or type(one[4]) is not tuple:
        return False
    return (one[0] is None or type(one[0]) is bytes) and all(type(x) is int for x in one[1:4])


def can_open(address: platform.FileAddress | None) -> bool:
    """Whether a file that another process has open can be opened here, too."""
    if address is None:
        return False
    try:
        os.close(platform.open_at(address))
    except OSError:
        return False
    return True


class Listener(Protocol):
    """Who hears what nodes do; called in a thread of the carrier."""

    def joined(self, node: str) -> None:
        """A node can be told things from here on."""

    def failed(self, address: str, reason: str) -> None:
        """Our part cannot be started on the node of that address."""

    def told(self, node: str, messages: Sequence[Message]) -> None:
        """Messages of a node, in the order in which it sent them."""

    def left(self, node: str, reason: str) -> None:
        """Nothing comes from that node any more, nor does anything reach it."""

    def ended(self, reason: str) -> None:
        """The foreign engine itself is gone, as with its scheduler or head; so are all nodes."""


class Carrier(Protocol):
    """One foreign engine.

    Attributes
    ----------
    address : str
        Where it is.
    own : bool
        Whether we have started it, so that it is as large as the program wants it.
    """

    address: str
    own: bool

    def context(self) -> ssl.SSLContext | None:
        """TLS for going to a node, as the foreign engine has it, once begun; None: it has none."""

    def begin(self, listener: Listener, facts: Facts) -> Sequence[str]:
        """Start our nodes wherever the foreign engine has workers; the addresses of those now.

        It does not wait for them: one that cannot be reached shall not hold up the others. The
        name of a node is its address, a space, and what makes it unique.

        Raises
        ------
        StartupFailed
            The engine is not there, refuses us, or cannot start our part.
        """

    def why_silent(self) -> str:
        """What keeps our nodes from answering, as a sentence; "" if it is not known."""

    def send(self, node: str, item: Item) -> None:
        """Send a message to a node, after those before it; from any thread, never waits."""

    def close(self) -> None:
        """End our nodes, and what `begin` has started; idempotent."""


def node_facts(
    address: str,
    cpus: float,
    memory: int,
    packages: Mapping[str, str],
    file: platform.FileAddress | None = None,
    reads: bool = False,
    door: tuple[str, int] | None = None,
    trouble: str = "",
    not_followed: Sequence[str] = (),
    gpus: Sequence[str] = (),
) -> Facts:
    """What a node says of itself first.

    ``file`` is one that it has open, for the driver to see whether it can open such files;
    ``reads`` is whether the node can open those of the driver; ``door`` is where the driver can
    come in, see `line`; ``trouble`` is why it cannot do what it was asked for; ``not_followed`` is
    where it does not follow the program, see `surroundings`; ``gpus`` are those that calls may use.
    """
    return {
        "address": address,
        "cpus": cpus,
        "memory": memory,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "file": file,
        "reads": reads,
        "door": door,
        "trouble": trouble,
        "not_followed": list(not_followed),
        "gpus": list(gpus),
        "mars": __version__,
        "python": system.python_version(),
        "packages": {name: _version_of(name) for name in packages},
    }


def packages_here() -> dict[str, str]:
    """Versions of the installed packages that this program has imported."""
    found = {}
    for name in {name.partition(".")[0] for name in list(sys.modules)}:
        if name in sys.stdlib_module_names or name.startswith("_"):
            continue
        version = _version_of(name)
        if version is not None:
            found[name] = version
    return found


def _version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return None


def missing_here(packages: Sequence[str], path: Sequence[str]) -> list[str]:
    """Those of some packages that cannot be imported here, also not from the program's path."""
    return [name for name in packages if not _is_here(name, path)]


def _is_here(name: str, path: Sequence[str]) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return (
            importlib.util.find_spec(name) is not None
            or importlib.machinery.PathFinder.find_spec(name, path) is not None
        )
    except ModuleNotFoundError:
        return False
    except Exception:  # somebody's own way of finding modules, which may find it when it is asked
        return True


def line_about_missing(node: str, packages: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """What to tell of packages that a node lacks.

    Parameters
    ----------
    node : str
        Its title.
    packages : mapping
        Which function needs which package.
    versions : mapping
        Packages that the program has imported, and their versions.
    """
    functions = ", ".join(sorted(set(packages.values())))
    titles = importlib.metadata.packages_distributions()
    installs = []
    for name in packages:
        title = titles.get(name, [_DISTRIBUTIONS.get(name, name)])[0]
        version = versions.get(name) or _version_of(title)
        installs.append(f"'{title}=={version}'" if version else title)
    return (
        f"node {node} has no {' and no '.join(packages)}, which calls of {functions} need: they "
        f"will fail there; on that host: pip install {' '.join(installs)}"
    )


_DISTRIBUTIONS: Final = {"sklearn": "scikit-learn", "cv2": "opencv-python", "PIL": "pillow",
                         "yaml": "PyYAML", "mars": "mars-remote"}  # fmt: skip
"""Packages whose module has another name, of those that values are often made of."""


def refusal(facts: Facts) -> str:
    """Why a node cannot be used, such as another version; empty when it can."""
    if facts["mars"] != __version__:
        return (
            f"node {facts['address']} has mars {facts['mars']}, this program has {__version__}; "
            f"install the same on both"
        )
    here = system.python_version_tuple()[:2]
    if tuple(facts["python"].split(".")[:2]) != here:
        return (
            f"node {facts['address']} runs Python {facts['python']}, this program "
            f"{system.python_version()}; functions travel only between equal minor versions"
        )
    if facts["trouble"]:
        return f"node {facts['address']} cannot be used: {facts['trouble']}"
    return ""


def differences(facts: Facts, packages: Mapping[str, str]) -> list[str]:
    """What a node has in another version than this program.

    Packages that it has not at all are told of when a call needs them.
    """
    lines = []
    for name, here in sorted(packages.items()):
        there = facts["packages"].get(name)
        if there not in (None, here) and name != "mars":
            lines.append(
                f"node {facts['address']} has {name} {there}, this program has {name} {here}"
            )
    return lines
