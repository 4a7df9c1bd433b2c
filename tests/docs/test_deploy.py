"""The files of docs/deploy: each passes the check of its own tool, notices a misspelt key, and says
what its timeouts have to do with the ttl. nginx and supervisord also run with them."""

from __future__ import annotations

import asyncio
import configparser
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import coord
from coord.stores import urls
from tests.docs.blocks import ROOT
from tests.support.processes import python_environment
from tests.support.waits import eventually

DEPLOY = ROOT / "docs" / "deploy"
FILES = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in (".md", ".pyc")
)
ABOUT_TTL = {"service", "timer", "yaml", "conf", "cfg"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def checked(*command: str, cwd: Path | None = None) -> tuple[int, str]:
    """The status of a tool, and what it printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=cwd, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout + done.stderr


def accepts(tmp_path: Path, file: Path, text: str) -> tuple[bool, str]:
    """Whether the tool for `file` accepts `text` in its place."""
    copy = tmp_path / file.name
    copy.write_text(text)
    if file.parent.name == "systemd":
        # The programs must exist, and a timer needs its service.
        for unit in file.parent.iterdir():
            other = copy if unit == file else tmp_path / unit.name
            source = text if unit == file else unit.read_text()
            other.write_text(re.sub(r"/opt/app/bin/\w+", "/bin/true", source))
        verify = ("systemd-analyze", "--recursive-errors=no", "verify", str(copy))
        status, output = checked(*verify)
    elif file.parent.name == "kubernetes":
        status, output = checked(
            sys.executable, "-m", "kubernetes_validate", "--strict", "-k", "1.31", str(copy)
        )
    elif file.parent.name == "compose":
        (tmp_path / "password").write_text("x")
        status, output = checked("docker-compose", "-f", str(copy), "config", cwd=tmp_path)
    elif file.parent.name == "haproxy":
        status, output = checked("haproxy", "-c", "-f", str(copy))
    else:
        status, output = checked(
            "nginx", "-t", "-p", f"{tmp_path}/", "-e", "stderr", "-c", str(copy),
            "-g", f"pid {tmp_path}/pid;",
        )  # fmt: skip
    return status == 0, output


TOOLS = {
    "systemd/scheduler.service": ("systemd-analyze", "TimeoutStopSec", "TimeoutStoppSec"),
    "systemd/report.service": ("systemd-analyze", "KillMode", "KilMode"),
    "systemd/report.timer": ("systemd-analyze", "Persistent", "Persisted"),
    "kubernetes/scheduler.yaml": ("kubernetes-validate", "livenessProbe", "livenesProbe"),
    "compose/compose.yaml": ("docker-compose", "stop_grace_period", "stop_grace"),
    "haproxy/haproxy.cfg": ("haproxy", "on-marked-down", "on-marked-dwn"),
    "nginx/nginx.conf": ("nginx", "proxy_next_upstream", "proxy_next_upstreams"),
}
"""The tool of each file, a key of the file, and the same key misspelt."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.needs(tool)) for name, (tool, *_) in TOOLS.items()],
)
def test_its_own_tool_accepts_it(name: str, tmp_path: Path) -> None:
    _, key, misspelt = TOOLS[name]
    text = (DEPLOY / name).read_text()
    accepted, output = accepts(tmp_path, DEPLOY / name, text)
    assert accepted, output
    assert key in text
    accepted, output = accepts(tmp_path, DEPLOY / name, text.replace(f"{key}", misspelt))
    assert not accepted, f"{misspelt} was not noticed: {output}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_its_comments_relate_its_timeouts_to_the_ttl(file: Path) -> None:
    if file.suffix[1:] in ABOUT_TTL and file.parent.name != "grafana":
        comments = re.findall(r"^\s*[#;](.*)$", file.read_text(), re.MULTILINE)
        assert "ttl" in " ".join(comments)


def test_every_file_has_a_check_and_stands_on_a_page() -> None:
    names = {str(file.relative_to(DEPLOY)) for file in FILES}
    assert names >= TOOLS.keys()
    pages = "".join(page.read_text() for page in DEPLOY.glob("*.md"))
    assert {name for name in names if f"]({name})" not in pages} == set()


@pytest.fixture
def servers() -> Iterator[list[ThreadingHTTPServer]]:
    """Two servers: the first waits for the role and answers 503, the second leads."""

    def handler(status: int) -> type[BaseHTTPRequestHandler]:
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        return Answer

    started = [ThreadingHTTPServer(("127.0.0.1", 0), handler(status)) for status in (503, 200)]
    for server in started:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield started
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.mark.needs("nginx")
def test_nginx_finds_the_leader(tmp_path: Path, servers: list[ThreadingHTTPServer]) -> None:
    port = free_port()
    text = (DEPLOY / "nginx/nginx.conf").read_text()
    for old, server in zip(("8001", "8002"), servers, strict=True):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{server.server_address[1]}")
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
    paths = "".join(
        f"{name}_temp_path {tmp_path};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        text.replace("http {", f"http {{ access_log off; {paths}", 1)
    )
    command = ["nginx", "-p", f"{tmp_path}/", "-e", "stderr", "-c", f"{tmp_path}/nginx.conf"]
    process = subprocess.Popen([*command, "-g", f"daemon off; pid {tmp_path}/pid;"])

    def post() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/write", "text")
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    try:
        eventually(lambda: post() == 200)
        assert [post() for _ in range(6)] == [200] * 6
        servers[0].shutdown()
        servers[0].server_close()
        assert [post() for _ in range(6)] == [200] * 6
    finally:
        process.terminate()
        process.wait(20)


def status(method: str, port: int, path: str) -> int:
    """The status of an answer, as a probe sees it; 0 if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": "app.example"})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_the_application_answers_the_probes_and_hands_over_at_sigterm(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    environment = {
        **os.environ,
        **python_environment(),
        "COORD_URL": f"sqlite://{tmp_path}/coord.db",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    processes = {
        port: subprocess.Popen(
            [
                sys.executable, "-W", "error", "-m", "uvicorn", "--app-dir", str(DEPLOY),
                "app:app", "--port", str(port), "--log-level", "warning",
                "--timeout-graceful-shutdown", "5",
            ],
            env=environment, stdout=subprocess.DEVNULL,
        )
        for port in ports
    }  # fmt: skip
    leader = "/roles/scheduler/leader"
    try:
        eventually(lambda: sorted(status("GET", port, leader) for port in ports) == [200, 503])
        first, second = sorted(ports, key=lambda port: status("GET", port, leader))
        assert [status("GET", port, "/healthz") for port in ports] == [200, 200]
        assert [status("GET", port, "/readyz") for port in ports] == [200, 200]
        assert [status("POST", port, "/write") for port in (first, second)] == [200, 503]
        processes[first].terminate()
        eventually(lambda: status("POST", second, "/write") == 200)
        # uvicorn ends itself by the signal that it got, after everything is done.
        assert processes[first].wait(30) in (0, -signal.SIGTERM)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def socket_directory() -> Iterator[str]:
    """A directory with a brief name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="coord-", dir="/tmp") as directory:
        yield directory


@pytest.mark.needs("supervisord")
def test_supervisord_runs_it_and_a_stop_releases_the_role(
    tmp_path: Path, socket_directory: str
) -> None:
    config = configparser.RawConfigParser(inline_comment_prefixes=())
    config.read(DEPLOY / "supervisord/scheduler.conf")
    url = f"sqlite://{tmp_path}/coord.db"
    program = config["program:scheduler"]
    program["command"] = (
        program["command"]
        .replace("/opt/app/bin/coord", f"{sys.executable} -m coord")
        .replace("/opt/app/bin/scheduler", "sleep 600")
    )
    program["environment"] = f'COORD_URL="{url}"'
    program["stdout_logfile"] = f"{tmp_path}/scheduler.log"
    del program["user"]
    control_socket = f"{socket_directory}/supervisor.sock"
    config["supervisord"] = {
        "nodaemon": "true",
        "logfile": f"{tmp_path}/supervisord.log",
        "pidfile": f"{tmp_path}/supervisord.pid",
        "childlogdir": str(tmp_path),
    }
    config["unix_http_server"] = {"file": control_socket}
    config["supervisorctl"] = {"serverurl": f"unix://{control_socket}"}
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    with (tmp_path / "supervisord.conf").open("w") as file:
        config.write(file)
    # supervisord is a program of the system's Python, which must not see the packages of this one.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    daemon = subprocess.Popen(
        [str(shutil.which("supervisord")), "-c", f"{tmp_path}/supervisord.conf"],
        stdout=subprocess.DEVNULL, env=environment, cwd=tmp_path,
    )  # fmt: skip

    def control(*words: str) -> str:
        return checked("supervisorctl", "-c", f"{tmp_path}/supervisord.conf", *words)[1]

    try:
        asyncio.run(urls.open_admin(url).setup({}, 10))
        with coord.Coordinator(url) as c:
            first = eventually(lambda: c.leader("scheduler"))
            assert isinstance(first, coord.Lease)
            c.request_step_down("scheduler", cooldown=0.0)
            eventually(lambda: (now := c.leader("scheduler")) and now.token > first.token)
            assert "RUNNING" in control("status")
            assert "scheduler: stopped" in control("stop", "scheduler")
            assert c.leader("scheduler") is None
            ended = c.history("scheduler")[0]
            assert ended.token > first.token
            assert str(ended.reason) == "released"
    finally:
        daemon.terminate()
        daemon.wait(60)
