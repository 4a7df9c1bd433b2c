"""Certificates for one test, made by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """The PEM files of a certificate and its key."""

    cert: str
    key: str


class Authority:
    """A certificate authority for one test, and certificates by it."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory, self._name = directory, name
        self.ca_certs = str(directory / f"{name}.pem")
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",  # Python 3.13 looks for it
            "-keyout", self._file("key"), "-out", self.ca_certs,
        )  # fmt: skip

    def server(self, host: str = "127.0.0.1") -> Certificate:
        """Return the certificate of a server that is reached as `host`, an IP address."""
        return self._issue("server", f"/CN={host}", f"subjectAltName=IP:{host}\n")

    def client(self) -> Certificate:
        """Return the certificate of a client. It has no Common Name."""
        return self._issue("client", "/O=coord tests", "extendedKeyUsage=clientAuth\n")

    def _issue(self, name: str, subject: str, extensions: str) -> Certificate:
        key, request, certificate, listed = (
            self._file(f"{name}.{kind}") for kind in ("key", "csr", "pem", "ext")
        )
        Path(listed).write_text(extensions)
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", key, "-out", request,
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.ca_certs, "-CAkey", self._file("key"), "-CAcreateserial",
            "-days", "2", "-extfile", listed, "-out", certificate,
        )  # fmt: skip
        return Certificate(certificate, key)

    def _file(self, kind: str) -> str:
        return str(self._directory / f"{self._name}.{kind}")

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
