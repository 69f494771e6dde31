"""``mars cluster`` says what is wrong and what to type next; clusters themselves: tests/deploy."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from mars.cli import main
from mars.cli.cluster import how_to_join
from mars.deploy import credentials, records
from mars.deploy.records import Record

pytest.importorskip("cryptography")

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """``say("down")``: status, output and errors of ``mars cluster down``."""

    def say(*words: str) -> tuple[int, str, str]:
        status = main(["cluster", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return say


def known(host: str = "10.77.0.1", port: int = 7103, secure: bool = True) -> Record:
    """A cluster that this user knows, and that does not run."""
    record = Record(records.new_id(), "dask", host, port, port, port + 1, secure, "up")
    records.save(record)
    if secure:
        credentials.create(record.credentials, [host], timedelta(days=1))
    return record


@pytest.mark.parametrize("words", [["down"], ["credentials", "export"]])
def test_without_a_cluster_it_says_how_to_begin_one(say: Say, words: list[str]) -> None:
    status, _, complaint = say(*words)
    assert (status, "`mars cluster up` begins one" in complaint) == (2, True)


def test_of_two_clusters_one_has_to_be_named(say: Say) -> None:
    known()
    known(port=7203)
    status, _, complaint = say("down")
    assert status == 2
    assert "tls://10.77.0.1:7103" in complaint and "tls://10.77.0.1:7203" in complaint
    assert say("down", "10.77.0.1:7103")[0] == 0
    assert [record.port for record in records.everything()] == [7203]


def test_an_address_that_is_not_known_is_an_error_unless_that_is_well(say: Say) -> None:
    assert say("down", "10.77.0.9:1")[0] == 2
    assert say("down", "--if-known", "10.77.0.9:1") == (0, "", "")


def test_status_without_a_cluster_is_well(say: Say) -> None:
    assert say("status") == (0, "this machine knows no cluster\n", "")


def test_a_bundle_goes_to_a_new_private_file_only(say: Say, tmp_path: Path) -> None:
    known()
    file = tmp_path / "bundle"
    assert say("credentials", "export", str(file))[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    status, _, complaint = say("credentials", "export", str(file))
    assert (status, "is there already" in complaint) == (2, True)
    assert file.read_bytes() == before


def test_a_bundle_is_not_written_to_a_terminal(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    known()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    status, said, complaint = say("credentials", "export")
    assert (status, said) == (2, "")
    assert "name a file" in complaint


def test_a_bundle_goes_from_hand_to_hand(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = known()
    _, bundle, _ = say("credentials", "export", "--client-only")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bundle.encode())))
    status, said, _ = say("credentials", "import")
    assert (status, "http://10.77.0.1:7104" in said) == (0, True)
    assert credentials.find(record.web_address) is not None
    assert say("credentials", "forget")[0] == 0
    assert credentials.find(record.web_address) is None


def test_a_bundle_that_others_can_read_is_refused(say: Say, tmp_path: Path) -> None:
    known()
    file = tmp_path / "bundle"
    say("credentials", "export", str(file))
    file.chmod(0o644)
    status, _, complaint = say("credentials", "import", str(file))
    assert (status, f"chmod 600 {file}" in complaint) == (2, True)


def test_joining_without_credentials_says_where_they_are_made(say: Say) -> None:
    status, _, complaint = say("join", "10.77.0.1:7103", "--n-cpu", "1")
    assert status == 2
    assert "mars cluster credentials export" in complaint


@pytest.mark.clusters  # it imports Dask, which changes how exceptions are pickled
def test_joining_a_cluster_that_is_gone_says_so(say: Say) -> None:
    pytest.importorskip("distributed")
    known(host="127.0.0.1", port=1)
    status, _, complaint = say("join", "127.0.0.1:1", "--n-cpu", "1")
    assert (status, "no cluster answers at 127.0.0.1:1" in complaint) == (1, True)


@pytest.mark.parametrize(
    ("option", "value"), [("--n-cpu", "0"), ("--n-cpu", "many"), ("--memory", "lots")]
)
def test_a_share_that_cannot_be_is_refused(say: Say, option: str, value: str) -> None:
    known(host="127.0.0.1", port=1)
    status, _, complaint = say("join", "127.0.0.1:1", option, value)
    assert status == 1 and value in complaint


def test_the_line_to_join_holds_no_secret(say: Say) -> None:
    record = known()
    line = how_to_join(record)
    files = credentials.load(record.credentials)
    assert line.count("\n") == 0 and "10.77.0.1:7103" in line and "--credentials -" in line
    assert files.token not in line
    assert how_to_join(known("127.0.0.1", 7303)) == "mars cluster join 127.0.0.1:7303"
