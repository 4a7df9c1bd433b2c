"""What `coord run` tells systemd about itself (`Type=notify`, see sd_notify(3)).

systemd names a datagram socket in `NOTIFY_SOCKET`, and the limit of its watchdog in
`WATCHDOG_USEC`. Without these variables nothing is sent.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from coord.cli.run.messages import messages
from coord.runtime import clock

if TYPE_CHECKING:
    from coord.api.sync_coordinator import Coordinator

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd sets for this process. COMMAND does not get them: two senders would disagree."""


class ServiceManager:
    """Sends the state of this process to systemd. It never waits, and never raises.

    Only one thread may use it.

    Args:
        address: The socket: a path, or `@` and an abstract name. None means that nobody listens.
        limit: The limit of the watchdog in seconds; None means that it is off.
        healthy: Whether this process makes progress. While it does not, the watchdog gets nothing.
    """

    def __init__(
        self, address: str | None, limit: float | None, healthy: Callable[[], bool]
    ) -> None:
        self._address = address
        self._every = None if address is None or limit is None else limit / 2
        self._healthy = healthy
        self._due = clock.total_seconds()
        self._unsent: dict[str, str] = {}

    def ready(self) -> None:
        """Say that this process is a candidate."""
        self._send(READY="1")

    def status(self, text: str) -> None:
        """Say in one line what this process does. `systemctl status` shows it."""
        self._send(STATUS=" ".join(text.split()))

    def stopping(self) -> None:
        """Say that this process ends."""
        self._send(STOPPING="1")

    def watch(self, seconds: float | None) -> float | None:
        """Send a sign of life to the watchdog if it is due.

        Args:
            seconds: How long the caller wants to wait; None means no limit.

        Returns:
            How long the caller may wait until it must call this again.
        """
        if self._every is None:
            return seconds
        now = clock.total_seconds()
        if now >= self._due:
            self._due = now + self._every
            if self._healthy():
                self._send(WATCHDOG="1")
        remaining = self._due - now
        return remaining if seconds is None else min(seconds, remaining)

    def _send(self, **state: str) -> None:
        if self._address is None:
            return
        self._unsent |= state
        text = "\n".join(f"{name}={value}" for name, value in self._unsent.items())
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(errors="backslashreplace"), name)
        except BlockingIOError:
            return  # The queue of the socket is full. The next call sends this, too.
        except OSError as err:
            messages.print(f"cannot notify systemd at {self._address}: {err.strerror or err}")
            self._address = self._every = None
        self._unsent.clear()


def is_healthy(coordinator: Coordinator) -> bool:
    """Return whether the coordinator makes progress, for the watchdog."""
    # Imported only here: without a watchdog nobody asks, and the import takes milliseconds.
    from coord.api.health import health

    return health(coordinator).healthy


def from_environment(
    environ: Mapping[str, str], process_id: int, healthy: Callable[[], bool]
) -> ServiceManager:
    """Return the service manager that the environment names.

    Args:
        environ: The environment variables.
        process_id: The id of this process. The watchdog may be meant for another process.
        healthy: See `ServiceManager`.
    """
    address = environ.get("NOTIFY_SOCKET") or None
    if address is not None and not address.startswith(("/", "@")):
        messages.print(
            f"invalid NOTIFY_SOCKET {address!r}: must be a path or @ and a name; systemd is not "
            "notified"
        )
        address = None
    limit = environ.get("WATCHDOG_USEC", "")
    watched = limit.isdecimal() and int(limit) > 0
    meant = environ.get("WATCHDOG_PID", str(process_id)) == str(process_id)
    return ServiceManager(address, int(limit) / 1e6 if watched and meant else None, healthy)
