"""What tells engines apart: names, the forms of addresses, and the options that they start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mars.engines import kinds
from mars.engines.kinds import DASK, KINDS, RAY, EngineOptions


def test_each_engine_has_a_name_of_its_own_and_each_scheme_means_one_engine() -> None:
    assert [name for name, kind in KINDS.items() if kind.name != name] == []
    schemes = [scheme for kind in KINDS.values() for scheme in kind.schemes]
    assert len(schemes) == len(set(schemes))


@pytest.mark.parametrize(
    ("address", "is_cluster", "may_be_known"),
    [
        ("tls://host:1", True, True),
        ("dask://host:1", True, True),
        ("ray://host:1", True, True),
        ("http://host:1", True, True),
        ("https://host:1", True, True),
        ("tcp://host:1", True, False),  # no TLS, so no credentials
        ("ray", True, False),  # the one on this host: nothing is known of it
        ("host:1", False, False),
        ("local-1-1", False, False),
    ],
)
def test_the_form_of_an_address_tells(address: str, is_cluster: bool, may_be_known: bool) -> None:
    assert kinds.is_cluster(address) is is_cluster
    assert kinds.may_be_known(address) is may_be_known


def test_no_address_is_none_of_a_cluster() -> None:
    assert not kinds.is_cluster(None)


def test_addresses_are_written_as_each_engine_has_them() -> None:
    assert DASK.address("host:1", secure=True) == "tls://host:1"
    assert DASK.address("host:1", secure=False) == "tcp://host:1"
    assert RAY.address("host:1", secure=True) == "ray://host:1"


def test_cores_are_divided_evenly_and_none_is_lost() -> None:
    assert kinds.divide(7, 3) == (3, 2, 2)
    assert sum(kinds.divide("auto", 2)) >= 2
    with pytest.raises(ValueError, match="n_cpu=1 cores cannot be divided into n_worker=2"):
        kinds.divide(1, 2)


def test_options_are_checked_before_an_engine_starts(tmp_path: Path) -> None:
    checked = kinds.parse_options(
        object_memory="1MiB", spill_directory=tmp_path, env={"A": "b"}, working_dir=tmp_path,
        node_ports="7200-7219", cores=(2, 1),
    )  # fmt: skip
    assert (checked.object_memory, checked.spill_directory) == (2**20, str(tmp_path))
    assert (checked.env, checked.working_dir) == ({"A": "b"}, str(tmp_path))
    assert (checked.node_ports, checked.cores) == ((7200, 7219), (2, 1))
    with pytest.raises(ValueError, match="node_ports"):
        kinds.parse_options(node_ports="7219-7200")


def test_options_with_other_credentials_differ_in_nothing_else() -> None:
    credentials = object()
    before = EngineOptions(cores=(3,), env={"A": "b"}, beside=True, node_ports=(1, 2))
    after = before.with_security(credentials)
    assert after.security is credentials
    for name in EngineOptions.__slots__:
        assert name == "security" or getattr(after, name) == getattr(before, name), name
