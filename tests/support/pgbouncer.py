"""PgBouncer in front of a throw-away PostgreSQL server, ended by its process id."""

from __future__ import annotations

import os
import shutil

from tests.support.postgresql_server import Server, unprivileged
from tests.support.server_process import ServerProcess, free_ports

BINARY = "pgbouncer"
START_TIMEOUT = 20.0


def available() -> bool:
    """Whether it can be started here."""
    return shutil.which(BINARY, path=_path()) is not None


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin"  # Debian's place


class PgBouncer(ServerProcess):
    """A pooler in transaction mode. `settings` are added to its section, a line each."""

    host = "127.0.0.1"

    def __init__(self, server: Server, *settings: str) -> None:
        super().__init__()
        self._server, self._settings = server, settings
        with free_ports(1) as ports:
            (self.port,) = ports

    def __enter__(self) -> PgBouncer:
        directory = self._server.directory
        file = directory / f"pgbouncer-{self.port}.ini"
        settings = [
            f"listen_addr = {self.host}",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = any",
            "pool_mode = transaction",
            *self._settings,
        ]
        target = f"* = host={self._server.host} port={self._server.port} user=postgres"
        lines = ["[databases]", target, "[pgbouncer]", *settings]
        file.write_text("\n".join(lines) + "\n")
        program = shutil.which(BINARY, path=_path())
        assert program is not None
        output = directory / f"pgbouncer-{self.port}.log"
        self.run([program, str(file)], output, **unprivileged())
        self.wait_until_it_listens(self.host, self.port, START_TIMEOUT)
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def through(self, url: str) -> str:
        """Return the URL of a database of the server, as reached through the pooler."""
        return url.replace(f":{self._server.port}/", f":{self.port}/")
