"""`coord web`: what it serves, what it refuses, and that it ends at once."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest

from coord import BadArgument, Coordinator
from coord.web.server import Address, BelowPrefix, read_token, validate_prefix
from tests.support.commands import run_here
from tests.support.running import running
from tests.support.waits import WITHIN, eventually
from tests.web.conftest import client, serving
from tests.web.scene import address, command

TOKEN = "0123456789abcdef-secret"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/coord.db"


def test_it_shows_the_store_and_ends_at_once_with_an_open_page(url: str) -> None:
    with running(command("--bind", "127.0.0.1:0"), url) as server:
        page = address(server)
        assert server.said == [f"coord web: {page} shows {url}"]
        with Coordinator(url) as c:
            lead = c.leadership("press", info={"name": "one"})
            assert lead.acquire(timeout=WITHIN)
            with urllib.request.urlopen(f"{page}api/roles", timeout=WITHIN) as answer:
                assert [role["role"] for role in json.loads(answer.read())] == ["press"]
            with urllib.request.urlopen(f"{page}events", timeout=WITHIN) as events:
                while b"one" not in events.readline():
                    pass
                with httpx.Client(timeout=WITHIN) as idle:  # a connection that stays open
                    assert idle.get(f"{page}healthz").status_code == 200
                    server.process.send_signal(signal.SIGTERM)
                    assert server.process.wait(WITHIN) == 0
                events.read()  # it has an end
        assert len(server.said) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_too(number: signal.Signals, url: str) -> None:
    with running(command("--bind", "127.0.0.1:0"), url) as server:
        address(server)
        server.process.send_signal(number)
        assert server.process.wait(WITHIN) == 0


def test_a_token_from_a_file_hands_roles_over(url: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    with (
        running(command("--bind", "127.0.0.1:0", "--token-file", str(file)), url) as server,
        Coordinator(url) as c,
    ):
        order = f"{address(server)}api/roles/press/step-down"
        lead = c.leadership("press", ttl=5)
        assert lead.acquire(timeout=WITHIN)
        with httpx.Client(timeout=WITHIN) as http:
            assert http.post(order).status_code == 401
            assert lead.is_leader
            accepted = http.post(order, headers={"Authorization": f"Bearer {TOKEN}"})
            assert accepted.status_code == 202
        eventually(lambda: not lead.is_leader)
        assert TOKEN not in "\n".join(server.said)
        arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        assert TOKEN.encode() not in arguments


def test_an_address_for_others_needs_a_name_and_says_what_it_shows(url: str) -> None:
    refused = subprocess.run(
        command("--bind", "0.0.0.0:0", "--url", url), capture_output=True, text=True, timeout=60
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "coord: invalid --bind '0.0.0.0:0': must be a loopback address, or name the page with "
        "--allow-host too\n"
    )
    with Coordinator(url) as c:
        c.unique_service("press", {"ttl": 5})  # creates the file
    open_to_all = command("--bind", "0.0.0.0:0", "--allow-host", "coord.example")
    with running(open_to_all, url) as server:
        port = address(server).split(":")[2]
        assert server.said[0] == (
            "coord web: everybody who can reach 0.0.0.0 can read all roles, infos, histories and "
            "services; they cannot change anything, without a token; put TLS in front"
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN) as http:
            named = http.get("/", headers={"Host": "coord.example"})
            assert (named.status_code, url in named.text) == (200, False)
            assert http.get("/", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--bind", "8008"], 2, "invalid --bind '8008': must be HOST:PORT, such as 127.0.0.1:8008"),
        (["--bind", "::1:80"], 2, "invalid --bind '::1:80': must be HOST:PORT"),
        (["--bind", "127.0.0.1:99999"], 2, "invalid --bind '127.0.0.1:99999': must be HOST:PORT"),
        (["--token-file", "/nowhere"], 2, "invalid --token-file '/nowhere': must be a text file"),
        (["--root-path", "coord"], 2, "invalid --root-path 'coord': must be a plain path"),
        (["--allow-host", "a:80"], 2, "invalid --allow-host "),
        (["--url", "mysql://x"], 2, "invalid --url 'mysql://x'"),
    ],
)
def test_mistakes_are_reported_in_a_line(
    words: list[str], status: int, message: str, url: str
) -> None:
    ended, out, err = run_here("web", *words, env={"COORD_URL": url})
    assert (ended, out) == (status, "")
    assert err.startswith(f"coord: {message}")
    assert err.count("\n") == 1


def test_an_address_in_use(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            command("--bind", bind, "--url", url), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"coord: cannot listen on {bind}: Address already in use; "
        "choose another address with --bind\n"
    )


def test_without_the_packages_it_says_what_to_install(url: str) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from coord.cli import main; main(['web', '--url', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, url], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == (
        "coord: cannot serve web pages: the package uvicorn is missing. pip install 'coord[web]'\n"
    )
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "import coord; coord.web.create_app(coord.Coordinator('memory://'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.endswith("the package jinja2 is missing. pip install 'coord[web]'\n")


def test_import_coord_imports_none_of_it() -> None:
    code = (
        "import coord, sys; coord.Coordinator('memory://').leader('r'); coord.web\n"
        "found = {'starlette', 'uvicorn', 'jinja2', 'anyio'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("bind", "host", "port", "loopback"),
    [
        ("127.0.0.1:8008", "127.0.0.1", 8008, True),
        ("[::1]:80", "::1", 80, True),
        ("localhost:0", "localhost", 0, True),
        ("127.1.2.3:1", "127.1.2.3", 1, True),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("[::]:1", "::", 1, False),
        ("localhost.evil.example:1", "localhost.evil.example", 1, False),
    ],
)
def test_addresses(bind: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(bind)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)


def test_a_token_file_is_written_by_its_owner_only(tmp_path: Path) -> None:
    file, output = tmp_path / "token", list[str]()
    file.write_text("0123456789abcdef\nand more\n")
    for mode in (0o620, 0o602, 0o666):
        file.chmod(mode)
        with pytest.raises(BadArgument, match=rf"its mode is {mode:o}; chmod 600"):
            read_token(str(file), output.append)
    file.chmod(0o600)
    assert read_token(str(file), output.append) == "0123456789abcdef"
    assert output == []
    file.chmod(0o444)  # as Docker mounts secrets
    assert read_token(str(file), output.append) == "0123456789abcdef"
    assert output == [
        f"other users may read the token in {file} (mode 444); chmod 600 prevents that"
    ]
    file.chmod(0o600)
    file.write_bytes("ü".encode() * 20)
    with pytest.raises(BadArgument, match="it is no ASCII text"):
        read_token(str(file), output.append)


@pytest.mark.parametrize("wrong", ["coord", "/a b", "/a?b", "/%2f", "//a"])
def test_wrong_prefixes(wrong: str) -> None:
    with pytest.raises(BadArgument, match="invalid root_path"):
        validate_prefix(wrong)


def test_a_prefix_that_a_proxy_removes_or_leaves() -> None:
    async def main() -> None:
        prefix = validate_prefix("/ops/coord/")
        async with serving() as (_, _http, app), client(BelowPrefix(app, prefix)) as http:
            for path in ("/", "/ops/coord/", "/services", "/ops/coord/services"):
                assert (await http.get(path)).status_code == 200, path
            assert (await http.get("/ops/coordination")).status_code == 404

    asyncio.run(main())
