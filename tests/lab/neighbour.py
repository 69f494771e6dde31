"""Another user of a host, who tries all that is ours: a program, ``python - UID [KEPT ...]``.

``KEPT`` are folders that belong to the tests, not to what they start.

Started as root, because the other user need not be able to enter the folder of Python; it becomes
that user before it tries anything. Prints JSON: what it got, by kind, and what it may see of us.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 (what is imported later, the other user may not read)
import json
import os
import re
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

PLACES = ("/mnt", "/tmp", "/var/tmp", "/dev/shm")
"""Where programs of a host have files."""

OPEN_TO_ALL = {*PLACES, "/mnt/tmp", "/mnt/hosts"}
"""What the host itself, not we, has made for everybody."""

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /get_or_create_runtime_env HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
)

got: dict[str, list[str]] = {}


def tried(kind: str, what: str, action: Callable[[], object]) -> None:
    """Note what was tried if it worked."""
    try:
        found = action()
    except (OSError, ValueError):
        return
    got.setdefault(kind, []).append(what if found is None else f"{what}: {found}")


def open_and_close(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))


def make_in(folder: str) -> None:
    path = os.path.join(folder, "somebody-was-here")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)


def is_known(path: str, kept: Sequence[str]) -> bool:
    """Whether the host itself has made it, or it leads to the tests and their Python."""
    if path in OPEN_TO_ALL:
        return True
    # These three are one folder: in the other two the tests' folder is an empty one.
    names = {path, *[re.sub("^(/mnt/tmp|/var/tmp|/tmp)/", rf"{one}/", path) for one in PLACES]}
    return any(f"{one}/".startswith(f"{name}/") for name in names for one in kept)


def files(us: int, kept: Sequence[str]) -> None:
    for place in PLACES:
        pending = [place]
        while pending:
            path = pending.pop()
            if path in kept:
                continue
            try:
                facts = os.lstat(path)
            except OSError:
                continue
            if facts.st_uid != os.getuid() and not is_known(path, kept):
                is_folder = stat.S_ISDIR(facts.st_mode)
                if is_folder:
                    tried("entered", path, lambda path=path: os.listdir(path) and None)
                    tried("made in", path, lambda path=path: make_in(path))
                elif stat.S_ISREG(facts.st_mode):
                    tried("read", path, lambda path=path: open_and_close(path, os.O_RDONLY))
                    tried("wrote", path, lambda path=path: open_and_close(path, os.O_WRONLY))
                if facts.st_uid == us and os.path.dirname(path) != "/":
                    tried("renamed", path, lambda path=path: os.rename(path, f"{path}-taken"))
            if stat.S_ISDIR(facts.st_mode):
                with contextlib.suppress(OSError):
                    pending += [os.path.join(path, name) for name in os.listdir(path)]


def unix_sockets() -> None:
    kinds = {"0001": socket.SOCK_STREAM, "0002": socket.SOCK_DGRAM, "0005": socket.SOCK_SEQPACKET}
    with open("/proc/net/unix", encoding="utf-8") as file:
        rows = [line.split() for line in file][1:]
    for row in rows:
        if len(row) < 8:
            continue  # it has no name
        name, kind = row[7], kinds[row[4]]
        address = f"\0{name[1:]}" if name.startswith("@") else name

        def connect(address: str = address, kind: socket.SocketKind = kind) -> None:
            with socket.socket(socket.AF_UNIX, kind) as one:
                one.settimeout(2)
                one.connect(address)

        tried("connected", name, connect)


def listeners() -> Iterator[tuple[str, int]]:
    """Where something listens here."""
    for table, own in (("tcp", "127.0.0.1"), ("tcp6", "::1")):
        with open(f"/proc/net/{table}", encoding="utf-8") as file:
            for row in [line.split() for line in file][1:]:
                address, _, port = row[1].partition(":")
                if row[3] != "0A":
                    continue
                if table == "tcp" and int(address, 16):
                    packed = bytes.fromhex(address)[::-1]
                    yield socket.inet_ntop(socket.AF_INET, packed), int(port, 16)
                else:
                    yield own, int(port, 16)


def ask(place: tuple[str, int], request: bytes, over_tls: bool) -> str:
    """How an answer begins; empty: it is none."""
    with socket.create_connection(place, 3) as plain:
        plain.settimeout(3)
        one: socket.socket = plain
        if over_tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            one = context.wrap_socket(plain)
        with one:
            one.sendall(request)
            return one.recv(200).partition(b"\r\n")[0].decode("utf-8", "replace")


def ports() -> None:
    for place in sorted(set(listeners())):
        for request in REQUESTS:
            for over_tls in (False, True):
                said = ""
                with contextlib.suppress(OSError, ValueError):
                    said = ask(place, request, over_tls)
                if said:
                    verb = request.split()[0].decode()
                    got.setdefault("answered", []).append(f"{place[0]}:{place[1]} {verb} {said}")


def processes() -> list[str]:
    """Command lines, which everybody may see."""
    seen = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                continue
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                seen.append(file.read().replace("\0", " "))
        except OSError:  # it has ended
            continue
        one_process(int(pid))
    return seen


def one_process(pid: int) -> None:
    folder = f"/proc/{pid}"
    for name in ("environ", "maps", "mem", "io", "stack", "syscall"):
        tried("looked into", f"{folder}/{name}", lambda name=name: look(f"{folder}/{name}"))
    tried("listed", f"{folder}/fd", lambda: os.listdir(f"{folder}/fd") and None)
    tried("followed", f"{folder}/cwd", lambda: os.readlink(f"{folder}/cwd"))
    tried("signalled", folder, lambda: os.kill(pid, 0))


def look(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def shared_memory() -> None:
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError), open(f"/proc/sysvipc/{kind}", encoding="utf-8") as file:
            for row in [line.split() for line in file][1:]:
                if int(row[2], 8) & 0o077:
                    got.setdefault("shares", []).append(f"{kind} {row[1]}, mode {row[2]}")


def main(uid: int, kept: Sequence[str]) -> None:
    us = os.geteuid()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")
    files(us, kept)
    unix_sockets()
    ports()
    shared_memory()
    seen = processes()
    print(json.dumps({"got": got, "command lines": seen}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
