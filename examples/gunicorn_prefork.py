"""gunicorn with preloading: it loads the application once and forks the workers, and one of them
does the periodic job.

Needs: pip install gunicorn
Run it: cd examples && gunicorn --config gunicorn_prefork.py gunicorn_prefork:app

The file is the application and the configuration of gunicorn. A function may be decorated before
the fork: nothing is connected until the first call, and a forked process never inherits a term.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable

import coord

workers = 3
preload_app = True


@coord.leader_only("digest", ttl=3)  # skipped where another worker leads
def digest() -> None:
    token = coord.require_term().token
    print(f"worker {os.getpid()} writes the digest under token {token}", flush=True)


def every(seconds: float) -> None:
    while True:
        digest()
        time.sleep(seconds)


def post_fork(server: object, worker: object) -> None:
    """Start the thread. gunicorn calls this in each new worker; threads do not survive a fork."""
    threading.Thread(target=every, args=(0.3,), daemon=True).start()


def app(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}\n".encode()]
