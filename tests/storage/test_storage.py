"""What is taken as ``storage_options``, how it is hidden, and `mars.remote.open` by itself."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import mars
import mars.remote as mr
from mars.storage import Storage, parse_storage

KEY = "AKIA-nobody-shall-see-it"


def test_what_is_given_is_copied_and_hidden() -> None:
    given: dict[str, dict[str, Any]] = {"s3": {"key": KEY, "client_kwargs": {"region": ["x"]}}}
    storage = parse_storage(given)
    assert storage is not None
    given["s3"]["client_kwargs"]["region"].append("y")
    assert storage.options == {"s3": {"key": KEY, "client_kwargs": {"region": ["x"]}}}
    assert "s3" in repr(storage) and KEY not in f"{storage} {storage!r} {[storage]}"
    assert pickle.loads(pickle.dumps(storage)) == storage


def test_options_that_are_given_win_protocol_by_protocol() -> None:
    below = Storage({"s3": {"anon": True}, "gs": {"token": "t"}})
    assert Storage({"s3": {"key": KEY}}).over(below).options == {
        "s3": {"key": KEY}, "gs": {"token": "t"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([KEY], "map protocols to options, .* got list"),
        ({"s3": KEY}, r"storage_options\['s3'\] has to be a dict .* got str"),
        ({"s3://": {}}, "protocols, such as 's3' without '://'"),
        ({"s3": {1: KEY}}, "a name that is no str: 1"),
        ({"s3": {"session": object()}}, r"\['session'\] is a object; .* not a client"),
    ],
)
def test_what_cannot_be_given_is_refused_and_the_error_shows_no_secret(
    given: Any, says: str
) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        mars.new_session(engine="inline", storage_options=given)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_open_reads_and_writes_in_calls_and_outside(engine: str, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/made.txt"

    def write() -> int:
        with mr.open(url, "w", encoding="utf-8") as file:
            count: int = file.write("grüße\n")
            return count

    with mars.new_session(engine=engine, n_cpu=1):
        assert mr.spawn(write).execute().fetch() == 6
        with mr.open(url, "r", encoding="utf-8") as file:
            assert file.read() == "grüße\n"
        with pytest.raises(FileNotFoundError):
            mr.open(f"{url}.not", "r")


def test_settings_of_fsspec_that_the_program_makes_are_followed() -> None:
    fsspec = pytest.importorskip("fsspec")

    def see() -> Any:
        import fsspec.config

        return fsspec.config.conf.get("ftp"), fsspec.config.conf.get("s3")

    before = dict(fsspec.config.conf)
    try:
        fsspec.config.conf["ftp"] = {"username": "otto"}
        with mars.new_session(n_cpu=1, storage_options={"s3": {"key": KEY}}):
            assert mr.spawn(see).execute().fetch() == ({"username": "otto"}, {"key": KEY})
            fsspec.config.conf["ftp"] = {"username": "anna"}
            assert mr.spawn(see).execute().fetch() == ({"username": "anna"}, {"key": KEY})
        assert "s3" not in fsspec.config.conf
    finally:
        fsspec.config.conf.clear()
        fsspec.config.conf.update(before)
