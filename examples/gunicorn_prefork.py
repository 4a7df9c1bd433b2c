"""gunicorn, pre-forked: the application is loaded once and forked into workers; one of them does
the periodic job.

Needs: pip install gunicorn
Run it: cd examples && gunicorn --config gunicorn_prefork.py gunicorn_prefork:app

The file is application and configuration in one. `@leader_only` may be applied before the fork:
nothing is connected until the first call, and a fork never inherits a term."""

import os
import threading
import time
from collections.abc import Callable, Iterable

import coord

workers = 3
preload_app = True


@coord.leader_only("digest", ttl=3)  # skipped where another worker leads
def digest() -> None:
    print(
        f"worker {os.getpid()} writes the digest under token {coord.current_term().token}",
        flush=True,
    )


def every(seconds: float) -> None:
    while True:
        digest()
        time.sleep(seconds)


def post_fork(server: object, worker: object) -> None:
    """gunicorn calls this in each new worker: threads do not survive a fork, so they start here."""
    threading.Thread(target=every, args=(0.3,), daemon=True).start()


def app(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}\n".encode()]
