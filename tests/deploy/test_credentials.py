"""Credentials: made private, found by address, passed on in a bundle, refused when unsafe."""

from __future__ import annotations

import datetime
import json
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mars.deploy import certificates, clusters, credentials, records
from mars.deploy.credentials import CA_KEY, Credentials
from mars.deploy.knock import context, knock
from mars.deploy.records import Record
from mars.errors import ClusterUnreachable, CredentialsError, UnknownTarget, UsageError

pytest.importorskip("cryptography")

DAY = datetime.timedelta(days=1)


@pytest.fixture
def known() -> Callable[..., Record]:
    """``known(host, port)``: a cluster with credentials that this user knows."""

    def known(
        host: str = "127.0.0.1", port: int = 7103, valid_for: datetime.timedelta = DAY
    ) -> Record:
        record = Record(records.new_id(), "dask", host, port, port, port + 1, True, "up")
        records.save(record)
        credentials.create(record.credentials, [host], valid_for)
        return record

    return known


def expired(directory: Path) -> None:
    """Make the credentials in a directory end a minute ago."""
    for name in (credentials.CA, CA_KEY, credentials.CERTIFICATE, credentials.KEY):
        (directory / name).unlink(missing_ok=True)
    past = datetime.timedelta(minutes=-1)
    certificates.make_authority(directory / credentials.CA, directory / CA_KEY, past)
    certificates.issue(
        (directory / credentials.CA, (directory / CA_KEY).read_bytes()),
        directory / credentials.CERTIFICATE,
        directory / credentials.KEY,
        ["127.0.0.1"],
        server=True,
    )


# -- made private ----------------------------------------------------------------------------------


def test_all_that_is_made_is_readable_for_its_owner_only(
    known: Callable[..., Record], state: Path
) -> None:
    known()
    for path in (state, *state.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == wanted, path


def test_the_token_is_long_differs_between_clusters_and_is_not_shown(
    known: Callable[..., Record],
) -> None:
    one, other = (credentials.load(known(port=port).credentials) for port in (7103, 7203))
    assert len(bytes.fromhex(one.token)) == 32
    assert one.token != other.token
    assert one.token not in repr(one)


# -- found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "tls://127.0.0.1:7103", "dask://127.0.0.1:7103", "http://127.0.0.1:7104",
        "https://localhost:7104", "127.0.0.1:7103", "localhost:7103",
    ],
)  # fmt: skip
def test_a_client_on_the_same_machine_finds_them_by_the_address(
    known: Callable[..., Record], address: str
) -> None:
    record = known()
    found = credentials.find(address)
    assert found is not None
    assert found == credentials.load(record.credentials)


def test_a_cluster_at_another_address_is_not_found(known: Callable[..., Record]) -> None:
    known()
    assert credentials.find("tls://127.0.0.1:7999") is None
    assert credentials.find("tls://10.77.0.1:7103") is None


def test_without_any_cluster_nothing_is_found() -> None:
    assert credentials.find("tls://127.0.0.1:7103") is None


@pytest.mark.parametrize("address", ["", "nowhere", "tls://host", "tls://host:port", "http://:80"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UnknownTarget, match="write it as 'host:port'"):
        credentials.find(address)


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem", "token"])
def test_a_part_that_others_can_read_is_refused(known: Callable[..., Record], name: str) -> None:
    record = known()
    (record.credentials / name).chmod(0o644)
    with pytest.raises(CredentialsError, match="chmod 600"):
        credentials.find(record.address)


def test_a_directory_that_others_can_enter_is_refused(known: Callable[..., Record]) -> None:
    record = known()
    record.credentials.chmod(0o755)
    with pytest.raises(CredentialsError, match="chmod 700"):
        credentials.find(record.address)


def test_expired_credentials_are_refused_with_their_date(known: Callable[..., Record]) -> None:
    record = known()
    expired(record.credentials)
    with pytest.raises(CredentialsError, match=r"expired on 20\d\d-.*mars cluster down"):
        credentials.find(record.address)


@pytest.mark.parametrize("name", ["cert.pem", "token"])
def test_a_missing_part_is_named(known: Callable[..., Record], name: str) -> None:
    record = known()
    (record.credentials / name).unlink()
    with pytest.raises(CredentialsError, match=f"{name} is missing"):
        credentials.find(record.address)


def test_a_damaged_certificate_is_named(known: Callable[..., Record]) -> None:
    record = known()
    path = record.credentials / "cert.pem"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CredentialsError, match=r"cert\.pem is damaged"):
        credentials.find(record.address)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"id": "../../x"}', '{"engine": "other"}', "\xff"]
)
def test_a_record_that_is_none_is_refused(known: Callable[..., Record], text: str) -> None:
    record = known()
    (record.directory / "cluster.json").write_text(text)
    with pytest.raises(CredentialsError, match="no record of a cluster"):
        credentials.find(record.address)


# -- passed on -------------------------------------------------------------------------------------


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch, place: Path) -> Iterator[None]:
    """As another user, or on another host."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place))
        yield


def test_a_bundle_lets_another_host_find_and_join(
    known: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = known()
    bundle = clusters.export(record)
    own = credentials.load(record.credentials)
    with elsewhere(monkeypatch, tmp_path / "other"):
        assert credentials.find(record.address) is None
        imported = clusters.import_bundle(bundle)
        found = credentials.find(record.web_address)
        assert found is not None
        assert found.token == own.token
        assert Path(found.key_path).read_bytes() != Path(own.key_path).read_bytes()
        with pytest.raises(CredentialsError, match=r"not for 10\.0\.0\.2; pass the bundle"):
            credentials.for_host(imported.credentials, tmp_path / "node", ["10.0.0.2"])
        clusters.import_bundle(bundle, host="10.0.0.2")
        credentials.for_host(imported.credentials, tmp_path / "node", ["10.0.0.2"])
        for path in (tmp_path / "other").rglob("mars/**/*"):
            assert not path.lstat().st_mode & 0o077, path


def test_a_bundle_of_another_authority_does_not_take_the_place_of_known_credentials(
    known: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = clusters.export(known())
    with elsewhere(monkeypatch, tmp_path / "other"):
        record = clusters.import_bundle(bundle)
        before = (record.credentials / credentials.CA).read_bytes()
        false = json.loads(bundle)
        forged = credentials.create(tmp_path / "forged", ["x"], datetime.timedelta(days=1))
        for name in (credentials.CA, CA_KEY):
            false["credentials"][name] = Path(forged.ca_path).with_name(name).read_text()
        with pytest.raises(CredentialsError, match="is not of it"):
            clusters.import_bundle(json.dumps(false).encode(), host="10.0.0.9")
        assert (record.credentials / credentials.CA).read_bytes() == before


def test_no_host_but_the_first_keeps_the_key_of_the_authority(
    known: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = known()
    bundle, for_clients = clusters.export(record), clusters.export(record, client_only=True)
    key = json.loads(bundle)["credentials"]["ca.key"].encode()
    with elsewhere(monkeypatch, tmp_path / "other"):
        clusters.import_bundle(for_clients)
        imported = clusters.import_bundle(bundle)  # it is for more, and takes the place
        credentials.for_host(imported.credentials, tmp_path / "other" / "node", ["localhost"])
        files = [path for path in (tmp_path / "other").rglob("*") if path.is_file()]
        assert len(files) > 6 and not [path for path in files if key in path.read_bytes()]
        for client_only in (False, True):  # its own certificate is a server's
            with pytest.raises(CredentialsError, match="where the cluster was started"):
                clusters.export(imported, client_only=client_only)


def test_a_bundle_for_clients_has_no_key_of_the_authority(
    known: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = known()
    bundle = clusters.export(record, client_only=True)
    assert b"ca.key" not in bundle
    with elsewhere(monkeypatch, tmp_path / "other"):
        imported = clusters.import_bundle(bundle)
        with pytest.raises(CredentialsError, match="for clients"):
            credentials.for_host(imported.credentials, tmp_path / "node", ["10.0.0.2"])
        with pytest.raises(CredentialsError, match="for clients"):
            clusters.export(imported)
        assert json.loads(clusters.export(imported, client_only=True))["mars_cluster"] == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"mars_cluster": 2}', b"\xff\xfe"])
def test_what_is_no_bundle_is_refused(data: bytes, state: Path) -> None:
    with pytest.raises(CredentialsError, match="mars cluster credentials export"):
        clusters.import_bundle(data)
    assert not state.exists()


@pytest.mark.parametrize("name", ["../../escape", "/etc/x", "a/b", ""])
def test_a_bundle_cannot_write_anywhere_else(
    known: Callable[..., Record], state: Path, name: str
) -> None:
    bundle = json.loads(clusters.export(known()))
    other, texts = bundle["record"] | {"id": "other"}, bundle["credentials"]
    for change in (
        {"record": other | {"id": name}},
        {"record": other, "credentials": {name: "x"}},
        {"record": other, "credentials": texts | {name: "x"}},
    ):
        before = sorted(state.rglob("*"))
        with pytest.raises(CredentialsError):
            clusters.import_bundle(json.dumps(bundle | change).encode())
        assert sorted(state.rglob("*")) == before


def test_an_insecure_cluster_has_nothing_to_export(known: Callable[..., Record]) -> None:
    with pytest.raises(UsageError, match="insecure"):
        clusters.export(replace(known(), secure=False))


# -- over the wire ---------------------------------------------------------------------------------


@contextmanager
def serving(files: Credentials) -> Iterator[int]:
    """A server that wants a certificate, and says one byte to whom it accepts; its port."""
    wanted = context(files, server=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return
                try:
                    with wanted.wrap_socket(plain, server_side=True) as secret:
                        secret.sendall(b"!")
                        secret.recv(100)
                except OSError:
                    plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_right_credentials_are_accepted(known: Callable[..., Record]) -> None:
    files = credentials.load(known().credentials)
    with serving(files) as port:
        knock("127.0.0.1", port, files)


def test_those_of_another_cluster_are_refused(known: Callable[..., Record]) -> None:
    right, wrong = (credentials.load(known(port=port).credentials) for port in (7103, 7203))
    with serving(right) as port:
        with pytest.raises(CredentialsError, match="not the cluster of these credentials"):
            knock("127.0.0.1", port, wrong)
        # Even if it trusts that server, the server does not trust it.
        mixed = replace(wrong, ca_path=right.ca_path)
        with pytest.raises(CredentialsError, match="refuses these credentials"):
            knock("127.0.0.1", port, mixed)


def certificate_of_yesterday(files: Credentials, directory: Path) -> Credentials:
    """The same key, with a certificate of the same authority that has ended."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    old = x509.load_pem_x509_certificate(Path(files.cert_path).read_bytes())
    ca_key = serialization.load_pem_private_key(
        Path(files.ca_path).with_name(CA_KEY).read_bytes(), None
    )
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(now - DAY)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path = directory / "yesterday.pem"
    signed = builder.sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return replace(files, cert_path=str(path))


def test_expired_ones_are_refused_by_the_other_side_too(
    known: Callable[..., Record], tmp_path: Path
) -> None:
    files = credentials.load(known().credentials)
    stale = certificate_of_yesterday(files, tmp_path)
    with serving(files) as port, pytest.raises(CredentialsError, match="EXPIRED"):
        knock("127.0.0.1", port, stale)


def test_a_client_certificate_cannot_pass_for_a_server(
    known: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = known()
    bundle = clusters.export(record, client_only=True)
    files = credentials.load(record.credentials)
    with elsewhere(monkeypatch, tmp_path / "other"):
        client = credentials.load(clusters.import_bundle(bundle).credentials)
    with serving(files) as port:
        knock("127.0.0.1", port, client)
    with serving(client) as port, pytest.raises(CredentialsError, match=r"unsuitable|unsupported"):
        knock("127.0.0.1", port, files)


def test_where_nobody_listens_is_said_at_once(known: Callable[..., Record]) -> None:
    files = credentials.load(known().credentials)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ClusterUnreachable, match=f"127.0.0.1:{port}.*refused"):
        knock("127.0.0.1", port, files)


def test_who_accepts_and_says_nothing_is_given_up(known: Callable[..., Record]) -> None:
    files = credentials.load(known().credentials)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ClusterUnreachable):
        knock("127.0.0.1", silent.getsockname()[1], files, limit_s=0.3)


def test_tls_before_1_2_is_not_spoken(known: Callable[..., Record]) -> None:
    files = credentials.load(known().credentials)
    assert context(files).minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context(files, server=True).verify_mode is ssl.CERT_REQUIRED
    assert os.path.exists(files.ca_path)
