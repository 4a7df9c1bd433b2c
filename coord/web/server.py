"""`coord web`: the application, served by uvicorn until a signal arrives."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from coord.api.coordinator import AsyncCoordinator
from coord.errors import BadArgument, CoordError, NotSetUp
from coord.web import create_app
from coord.web.security import LOOPBACK

GRACE = 5
"""Seconds for which requests may go on after a signal. Streams end at once."""
MAX_TOKEN_FILE = 4096
"""Bytes of a token file that are read."""


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: The host name or IP address.
        port: The port; 0 means a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, bind: str) -> Address:
        """Return the address in `HOST:PORT` or `[IPV6]:PORT`.

        Raises:
            BadArgument: It is something else.
        """
        host, _, port = bind.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        valid = port.isascii() and port.isdigit() and int(port) <= 65_535
        if not host or not valid:
            raise BadArgument("bind", bind, "must be HOST:PORT, such as 127.0.0.1:8008")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect. Other names than localhost count as not."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() in LOOPBACK

    def listen(self) -> socket.socket:
        """Return a socket that listens here.

        Raises:
            CoordError: The address cannot be used.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(1024)
        except OSError as err:
            listener.close()
            raise CoordError(
                f"cannot listen on {self.host}:{self.port}: {err.strerror or err}; "
                "choose another address with --bind"
            ) from None
        return listener


def read_token(path: str, warn: Callable[[str], None]) -> str:
    """Return the token on the first line of a file.

    Args:
        path: The file.
        warn: Called with a sentence if other users may read the file. It is no error, because
            Docker and Kubernetes mount secrets like that, in containers without other users.

    Raises:
        BadArgument: The file cannot be read, or other users may write it.
    """
    advice = "must be a text file that only you can write, with the token on its first line"
    try:
        with Path(path).open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read(MAX_TOKEN_FILE).partition("\n")[0].strip()
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is no ASCII text"
        raise BadArgument("token_file", path, f"{advice} ({reason})") from None
    if mode & 0o022:
        raise BadArgument("token_file", path, f"{advice} (its mode is {mode:o}; chmod 600)")
    if mode & 0o044:
        warn(f"other users may read the token in {path} (mode {mode:o}); chmod 600 prevents that")
    return token


class BelowPrefix:
    """Accepts requests whose path begins with a prefix, which a proxy in front did not remove.

    Args:
        app: The application.
        prefix: The prefix, such as "/coord"; "" accepts paths as they are.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if self._prefix and (path == self._prefix or path.startswith(f"{self._prefix}/")):
            scope = {**scope, "root_path": self._prefix}
        await self._app(scope, receive, send)


def validate_prefix(root_path: str) -> str:
    """Return a path prefix without a slash at its end.

    Raises:
        BadArgument: It does not begin with a slash, or contains characters that need encoding.
    """
    prefix = root_path.rstrip("/")
    plain = prefix.isascii() and not set(prefix) & set("%?#\\ ") and prefix.isprintable()
    if (prefix and not prefix.startswith("/")) or not plain or "//" in prefix:
        raise BadArgument("root_path", root_path, "must be a plain path such as /coord")
    return prefix


class _Server(uvicorn.Server):
    """A server whose signals belong to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _closing(coordinator: AsyncCoordinator) -> AsyncIterator[AsyncCoordinator]:
    try:
        yield coordinator
    finally:
        await coordinator.close()


async def serve(
    url: str | None,
    address: Address,
    *,
    token: str | None,
    hosts: Sequence[str],
    root_path: str,
    started: Callable[[str, str], None],
) -> None:
    """Serve the page until SIGINT, SIGTERM or SIGHUP arrives.

    Args:
        url: The URL of the store; None means the environment variable `COORD_URL`.
        address: Where to listen.
        token: The token; None means read-only.
        hosts: The allowed host names.
        root_path: The path below which a proxy publishes the page.
        started: Called as `started(address of the page, URL of the store)` when it listens.

    Raises:
        BadArgument: An argument is invalid.
        CoordError: The store cannot be used, or the address cannot.
    """
    prefix = validate_prefix(root_path)
    async with _closing(AsyncCoordinator(url)) as coordinator:
        # No `check`, which needs the right to write. A page whose store is not set up says so.
        with contextlib.suppress(NotSetUp):
            await coordinator.leaders()
        app = create_app(coordinator, token=token, allowed_hosts=hosts)
        config = uvicorn.Config(
            BelowPrefix(app, prefix),
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
        )
        server = _Server(config)

        def end(number: int) -> None:
            app.close()
            server.handle_exit(number, None)

        loop = asyncio.get_running_loop()
        with address.listen() as listener:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, end, number)
            host = f"[{address.host}]" if ":" in address.host else address.host
            started(f"http://{host}:{listener.getsockname()[1]}/", coordinator.url)
            await server.serve(sockets=[listener])
