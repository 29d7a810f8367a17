# SPDX-License-Identifier: Apache-2.0
"""The server behind a certificate."""

from __future__ import annotations

import datetime
import shutil
import socket
import ssl
import time
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from serving import QUESTION, running_server
from support import wait_until

from manymind import Pipeline
from manymind.errors import InvalidParameterError
from manymind.server import run
from manymind.server.config import ServerConfig

CHAT = {"model": "smollm2", "messages": QUESTION, "max_tokens": 3}


def tls_files(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    private = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key.write_bytes(private.private_bytes(*form, serialization.NoEncryption()))
    return certificate, key


def test_tls(smollm2: Pipeline, tmp_path: Path) -> None:
    certificate, key = tls_files(tmp_path)
    config = ServerConfig("smollm2", port=0, tls_certificate=certificate, tls_key=key)
    with running_server(smollm2, config) as server:
        assert server.url.startswith("https://")
        url = server.url.replace("127.0.0.1", "localhost")
        trusting = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(verify=trusting, base_url=url, timeout=60) as client:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
            with client.stream(
                "POST", "/v1/chat/completions", json={**CHAT, "stream": True}
            ) as answer:
                assert list(answer.iter_lines())[-2] == "data: [DONE]"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/health")
        # Without TLS there is no answer, and old versions of it are refused.
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url.replace('https', 'http')}/health")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(certificate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health", verify=old)


def serial(url: str) -> int:
    """Of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = urlsplit(url)
    place = (str(address.hostname), address.port or 0)
    with socket.create_connection(place, 20) as raw, context.wrap_socket(raw) as tls:
        return x509.load_der_x509_certificate(tls.getpeercert(True) or b"").serial_number


def test_a_renewed_certificate_is_used(
    smollm2: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart; connections that are open go on."""
    monkeypatch.setattr(run, "_TICKS_BETWEEN_LOOKS", 1)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    certificate, key = tls_files(first)
    newer = tls_files(second)
    config = ServerConfig("smollm2", port=0, tls_certificate=certificate, tls_key=key)
    with (
        running_server(smollm2, config) as server,
        httpx.Client(verify=False, base_url=server.url, timeout=60) as client,
    ):
        assert client.get("/health").status_code == 200
        before = serial(server.url)
        # One file of the two is no pair: the old one stays in use.
        shutil.copy(newer[0], certificate)
        time.sleep(0.3)
        assert serial(server.url) == before
        shutil.copy(newer[1], key)
        wait_until(lambda: serial(server.url) != before, 5)
        expected = x509.load_pem_x509_certificate(newer[0].read_bytes())
        assert serial(server.url) == expected.serial_number
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("broken", ["tls_certificate", "tls_key"])
def test_unusable_tls_files_are_named(tmp_path: Path, broken: str) -> None:
    files = dict(zip(("tls_certificate", "tls_key"), tls_files(tmp_path), strict=True))
    files[broken].write_text("nothing of use", encoding="utf-8")
    with pytest.raises(InvalidParameterError, match="tls_certificate, tls_key"):
        ServerConfig("smollm2", port=0, **files)
