"""Runs a Python program whose own listeners talk with this host only: a program.

``python this_host.py PROGRAM ARGUMENTS``, for programs of Ray that speak HTTP and that nobody else
needs to reach. They listen on the node's address, as the raylet beside them looks for them there;
who comes from another host is hung up on before anything is read. Put before them by
`mars.deploy.ray_start`. Imports nothing of mars: the first place in the way of the imports has to
be the program's.

The kernel could do the same, but not everywhere. A socket that listens on one device only
(`SO_BINDTODEVICE`) does not help: what comes from this host comes by the device that has the
address, not by loopback. A filter of a TCP socket (`SO_ATTACH_FILTER`) is for root only.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path[0] = sys.argv[1].rpartition("/")[0]

import runpy
import socket
from typing import Final

_accept: Final = socket.socket.accept


def accept(listener: socket.socket) -> tuple[socket.socket, object]:
    """Accept a connection, as `socket.socket.accept` does, if it is from this host.

    Raises
    ------
    ConnectionAbortedError
        It is not, and is closed. Servers take it for one that has gone already, and go on.
    """
    connection, peer = _accept(listener)
    over_network = listener.family in (socket.AF_INET, socket.AF_INET6)
    # What goes from this host to one of its addresses comes from that address. Nobody else can come
    # from there: the answer to the first packet would not leave this host.
    if over_network and peer[0] != connection.getsockname()[0]:
        connection.close()
        raise ConnectionAbortedError(f"{peer[0]} is another host")
    return connection, peer


if __name__ == "__main__":
    socket.socket.accept = accept  # type: ignore[method-assign, assignment]
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # it would accept by itself
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
