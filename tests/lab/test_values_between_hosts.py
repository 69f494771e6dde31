"""Large values and the program's folder, between hosts that share nothing."""

from __future__ import annotations

import pytest

from tests.lab.hosts import Lab

pytest.importorskip("distributed")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

PROGRAM = """
import os, socket, tempfile
import numpy as np
import mars
import mars.remote as mr

def make(size):
    print("made on", socket.gethostname())
    return np.arange(size)

def read(array, name):
    return socket.gethostname(), int(array.sum()), open(name).read()

folder = tempfile.TemporaryDirectory()
with open(os.path.join(folder.name, "told.txt"), "w") as file:
    file.write("from-the-program")
with mars.new_session("http://10.77.0.1:7104", working_dir=folder.name) as session:
    one, two = sorted(session.get_worker_addresses())
    given = np.arange(300_000)
    made = mr.spawn(make, (700_000,), expect_worker=one)
    calls = [mr.spawn(read, (array, "told.txt"), expect_worker=where)
             for array in (made, given) for where in (one, two)]
    mr.ExecutableTuple([made, *calls]).execute()
    for call in calls:
        print(*call.fetch())
    print(str(made.fetch_log()).strip(), int(made.fetch().sum()))
    print(len(session.engine.site.nodes.mirrors._opened))
"""


def test_large_values_and_the_folder_reach_each_host(lab: Lab) -> None:
    lab["head"].mars("cluster", "up", "--engine", "dask", "--host", "10.77.0.1")
    bundle = lab["head"].mars("cluster", "credentials", "export").stdout
    for name in ("one", "two"):
        share = ("--n-cpu", "1", "--memory", "512MiB", "--credentials", "-")
        lab[name].mars("cluster", "join", "10.77.0.1:7103", *share, stdin=bundle)
    lab["client"].mars("cluster", "credentials", "import", stdin=bundle)
    said = lab["client"].python(PROGRAM).stdout.splitlines()
    large, small = sum(range(700_000)), sum(range(300_000))
    assert said == [
        f"one {large} from-the-program", f"two {large} from-the-program",
        f"one {small} from-the-program", f"two {small} from-the-program",
        f"made on one {large}",
        "0",  # no file of another host was opened
    ]  # fmt: skip
    for name in ("one", "two", "head"):
        lab[name].mars("cluster", "down")
        assert (lab[name].processes(), lab[name].files()) == ([], []), name
