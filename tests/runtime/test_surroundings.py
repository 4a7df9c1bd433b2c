"""Programs that change the process around coord: monkey patching, subinterpreters, a user without an
entry in the user database, a seeded random generator. coord works there, or says what is wrong."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import coord

WORKS = """
import asyncio, coord, threading
c = coord.Coordinator("sqlite://{directory}/c.db")
with c.leadership("r", ttl=5) as lead:
    assert lead.wait(60) and c.leader("r").token
    other = coord.Coordinator("sqlite://{directory}/c.db")
    assert other.leader("r").token == 1
    assert coord.leader_only("q", coordinator=c)(lambda: coord.require_term().token)() == 1
    assert c.unique_service("u", {{"ttl": 5}})["mine"]
    with coord.Heartbeat(c.services, {{"role": "w", "ttl": 5, "load": 0}}) as heartbeat:
        assert heartbeat.healthy
other.close()
c.close()

async def main():
    async with coord.AsyncCoordinator("memory://") as c, c.leadership("r") as lead:
        assert await lead.wait(60)

asyncio.run(main())
print("works", flush=True)
"""
REFUSED = """
import coord
for make in (
    lambda: coord.Coordinator("memory://"),
    lambda: coord.AsyncCoordinator("memory://"),
    lambda: coord.ServiceRegistry("memory://"),
    lambda: coord.connect("sqlite://{directory}/x.db"),
    lambda: coord.leader_only("r")(print)(),
):
    try:
        make()
    except coord.CoordError as err:
        assert {call!r} in str(err), err
    else:
        raise AssertionError("it was not refused")
print("refused", flush=True)
"""


def run(code: str, directory: Path) -> str:
    environment = {**os.environ, "XDG_STATE_HOME": str(directory), "COORD_URL": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=directory,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


GEVENT = "gevent.monkey.patch_all({})"
EVENTLET = "eventlet.monkey_patch({})"
PATCHERS = pytest.mark.parametrize(
    ("modules", "patch", "settings"),
    [
        pytest.param(
            "gevent.monkey",
            GEVENT,
            "thread=False, queue=False, select=False",
            marks=pytest.mark.needs("gevent"),
            id="gevent",
        ),
        pytest.param(
            "eventlet", EVENTLET, "thread=False", marks=pytest.mark.needs("eventlet"), id="eventlet"
        ),
    ],
)


@PATCHERS
def test_monkey_patched_threads_are_refused(
    modules: str, patch: str, settings: str, tmp_path: Path
) -> None:
    refused = REFUSED.format(directory=tmp_path, call=patch.format(settings))
    assert run(f"import {modules}\n{patch.format('')}\n{refused}", tmp_path) == "refused\n"


@PATCHERS
def test_it_works_with_the_call_that_the_error_names(
    modules: str, patch: str, settings: str, tmp_path: Path
) -> None:
    works = WORKS.format(directory=tmp_path)
    assert run(f"import {modules}\n{patch.format(settings)}\n{works}", tmp_path) == "works\n"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the module has another name and interface")
@pytest.mark.parametrize(
    "where", ["run()", "t = threading.Thread(target=run); t.start(); t.join()"]
)
def test_it_works_in_a_subinterpreter(where: str, tmp_path: Path) -> None:
    # As in mod_wsgi and uWSGI. There, `signal.signal` fails in what seems to be the main thread.
    works = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n"
    works += WORKS.format(directory=tmp_path)
    code = f"""
import os, sys, threading, _xxsubinterpreters as interpreters
def run():
    global kept
    kept = interpreters.create(isolated=False)
    interpreters.run_string(kept, {works!r})
{where}
sys.stdout.flush()
os._exit(0)
"""
    assert run(code, tmp_path) == "works\n"


NO_HOME = """
import os, pwd
def no_entry(uid):
    raise KeyError(uid)
pwd.getpwuid = no_entry
os.environ.pop("HOME", None)
os.environ.pop("XDG_STATE_HOME", None)
import coord
for make in (coord.connect, coord.Coordinator, coord.leader_only("r")(print)):
    try:
        make()
    except coord.BadArgument as err:
        assert "home directory" in str(err) and "COORD_URL" in str(err), err
    else:
        raise AssertionError("it made a database")
try:
    coord.Coordinator("sqlite:~/c.db")
except coord.BadArgument as err:
    assert "home directory is not known" in str(err), err
else:
    raise AssertionError("~ is taken for a directory")
"""


def test_a_user_without_an_entry_in_the_user_database(tmp_path: Path) -> None:
    code = f"{NO_HOME}\n{WORKS.format(directory=tmp_path)}"
    assert run(code, tmp_path) == "works\n"
    assert not (tmp_path / "~").exists()


def test_coord_does_not_draw_from_the_generator_of_the_program(tmp_path: Path) -> None:
    state = random.getstate()
    with (
        coord.Coordinator(f"sqlite://{tmp_path}/c.db") as first,
        coord.Coordinator(f"sqlite://{tmp_path}/c.db") as second,
        first.leadership("r", ttl=0.5) as leader,
    ):
        assert leader.wait(60)
        with second.leadership("r", ttl=0.5) as follower:
            second.services.heartbeat({"role": "w", "ttl": 5, "load": 0})
            assert second.services.healthy_service("w", choose="spread")
            leader.stop()
            assert follower.wait(60)
    assert random.getstate() == state


def test_no_module_of_coord_uses_the_generator_of_the_program() -> None:
    """Of the module `random`, only the class `Random` is used; tenacity draws from `random`, too."""
    allowed = {"random.Random"}
    for path in (Path(coord.__file__).parent).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "wait_random" not in text, path
        used = set(re.findall(r"(?<![\w.])random\.\w+", text)) - allowed
        assert not used, (path, used)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_draws_other_numbers(tmp_path: Path) -> None:
    code = """
import os
from coord.runtime.retry import rng
if (child := os.fork()) == 0:
    print(rng.random(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(rng.random())
"""
    assert len(set(run(code, tmp_path).split())) == 2
