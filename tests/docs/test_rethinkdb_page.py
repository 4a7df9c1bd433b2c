"""What docs/rethinkdb.md has operators write does what it says, on a real server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import coord
from coord.stores.rethinkdb.setup import set_up
from tests.docs.blocks import blocks
from tests.stores.rethinkdb.kit import ask, r, run
from tests.support.certificates import Authority
from tests.support.rethinkdb_server import Server


def block(sign: str) -> str:
    (code,) = (
        block.code
        for block in blocks({"text"})
        if block.where.startswith("docs/rethinkdb.md") and sign in block.code
    )
    return code


def test_the_user_with_few_rights_can_lead_wait_and_heartbeat(own_server: Server) -> None:
    url = own_server.url()
    run(lambda: set_up(url))
    for line in block(".grant(").splitlines():
        if not line.startswith("//"):
            output = re.sub(r"(\w+): ", r'"\1": ', line).replace(
                "true", "True"
            )  # JavaScript's way to write a dict
            ask(url, eval(output, {"r": r}))
    with coord.connect(own_server.url(who="app:%E2%80%A6@")) as c:
        with c.leadership("job", ttl=5) as lead:
            assert lead.wait(10)
            assert c.candidates("job") == []
        assert [item.reason for item in c.history("job")] == ["released"]
        c.services.heartbeat({"role": "web", "ttl": 5, "load": 0})
        assert c.services.healthy_service("web")
    with pytest.raises(coord.AccessDenied):
        run(lambda: set_up(own_server.url("another", who="app:%E2%80%A6@")))


@pytest.mark.rethinkdb
@pytest.mark.needs("openssl")
def test_the_configuration_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.server()
    text = block("driver-tls-key=")
    assert [line for line in text.splitlines() if line.startswith("join=")] == [
        "join=db2:29015",
        "join=db3:29015",
    ]
    text = re.sub(
        r"^(join|canonical-address|server-name|bind|no-http-admin).*\n",
        "",
        text,
        flags=re.MULTILINE,
    )
    for there, here in (("db1.key", key), ("db1.pem", certificate), ("ca.pem", authority.ca_certs)):
        text = text.replace(f"/etc/rethinkdb/{there}", here)
    (tmp_path / "coord.conf").write_text(text)
    with Server("--config-file", str(tmp_path / "coord.conf")) as server:
        url = server.url(options=f"?tls=1&ca_certs={authority.ca_certs}")
        run(lambda: set_up(url))
        with coord.connect(url) as c:
            assert c.leadership("job", ttl=5).acquire(timeout=10)
        with pytest.raises(coord.StoreUnavailable):
            coord.connect(server.url(), timeout=2)


@pytest.mark.rethinkdb
def test_the_options_that_the_file_has_are_the_servers() -> None:
    help_text = subprocess.run(
        ["rethinkdb", "--help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    for line in block("driver-tls-key=").splitlines():
        if not line.startswith("#"):
            assert f"--{line.split('=')[0]}" in help_text, line
