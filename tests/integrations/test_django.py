"""`manage.py run_as_leader` and the system check, in a real project and real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import coord
from coord.stores import urls
from tests.support.forkserver import Forked, ForkServer
from tests.support.processes import python_environment
from tests.support.waits import eventually

pytestmark = [pytest.mark.needs("django"), pytest.mark.xdist_group("django")]

MANAGE = """\
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETTINGS = """\
import os
SECRET_KEY = "x"
INSTALLED_APPS = ["coord.integrations.django", "app"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
"""
WORK = """\
import pathlib, time
from django.core.management.base import BaseCommand
import coord

class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("journal")
        parser.add_argument("--for", dest="seconds", type=float, default=0.0)
        parser.add_argument("--lose", action="store_true")

    def handle(self, journal, seconds, lose, **options):
        term = coord.require_term()
        self.stdout.write(f"{term.role} token {term.token}")
        with open(journal, "a") as file:
            print(term.token, file=file, flush=True)
        time.sleep(seconds)
        if lose:
            with coord.Coordinator(os.environ["COORD_URL"]) as c:
                c.request_step_down(term.role)
            while True:
                term.check()
                time.sleep(0.05)

import os
"""
TESTS = """\
from io import StringIO
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, override_settings

@override_settings(COORD_URL="memory://django-tests")
class Nightly(SimpleTestCase):
    def test_it_runs(self):
        out = StringIO()
        call_command("run_as_leader", "--role", "nightly", "--", "work", "journal", stdout=out)
        self.assertIn("nightly token 1", out.getvalue())

    def test_another_leads(self):
        import coord
        with coord.Coordinator("memory://django-tests") as c, c.leadership("busy") as lead:
            lead.wait(10)
            with self.assertRaises(CommandError) as caught:
                call_command("run_as_leader", "--role", "busy", "--no-wait", "--", "work", "journal")
            self.assertEqual(caught.exception.returncode, 75)
"""

Manage = Callable[..., "Managed"]
IMPORTED = (
    "coord.api.coordinator",
    "coord.stores.sqlite",
    "coord.integrations.django.apps",
    "coord.integrations.django.management.commands.run_as_leader",
    "django.core.checks.registry",
    "django.core.management.commands.check",
    "django.db.backends.sqlite3.base",
    "django.db.models",
)


class Managed:
    """A call of `manage.py`, and the files with what it says."""

    def __init__(self, process: Forked, out: Path, err: Path) -> None:
        self.process, self.out, self.err = process, out, err


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/coord.db"


@pytest.fixture(scope="module")
def python() -> Iterator[ForkServer]:
    with ForkServer(*IMPORTED, options=("-W", "error")) as server:
        yield server


@pytest.fixture
def manage(tmp_path: Path, url: str, python: ForkServer) -> Iterator[Manage]:
    """Starts `manage.py` of a small project."""
    commands = tmp_path / "app/management/commands"
    commands.mkdir(parents=True)
    for folder in (tmp_path / "app", commands.parent, commands):
        (folder / "__init__.py").touch()
    (commands / "work.py").write_text(WORK)
    (tmp_path / "app/tests.py").write_text(TESTS)
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "settings.py").write_text(SETTINGS)
    started: list[Forked] = []

    def start(*words: str, settings: str = "") -> Managed:
        (tmp_path / "settings.py").write_text(SETTINGS + settings)
        number = len(started)
        out, err = tmp_path / f"out-{number}", tmp_path / f"err-{number}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = python.start(
                "manage.py",
                *words,
                cwd=tmp_path,
                environment={**os.environ, **python_environment(), "COORD_URL": url},
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
            )
        started.append(process)
        return Managed(process, out, err)

    yield start
    for process in started:
        process.kill()
        process.wait()


def result(managed: Managed) -> tuple[int, str, str]:
    status = managed.process.wait(60)
    return status, managed.out.read_text(), managed.err.read_text()


def test_the_command_runs_under_the_term_and_the_role_is_released(
    manage: Manage, url: str, tmp_path: Path
) -> None:
    words = ("run_as_leader", "--role", "nightly", "--", "work", "journal")
    assert result(manage(*words)) == (0, "nightly token 1\n", "")
    with coord.Coordinator(url) as c:
        assert c.leader("nightly") is None
    assert result(manage(*words)) == (0, "nightly token 2\n", "")


def test_another_candidate_leads(manage: Manage, url: str, tmp_path: Path) -> None:
    managed = manage("run_as_leader", "--role", "nightly", "--", "work", "journal", "--for", "60")
    first = managed.process
    eventually((tmp_path / "journal").exists)
    status, out, err = result(
        manage("run_as_leader", "--role", "nightly", "--no-wait", "--", "work", "journal")
    )
    assert (status, out) == (75, "")
    assert (
        err
        == f"CommandError: not started, the leader of 'nightly' is pid {first.pid} on {os.uname().nodename}\n"
    )
    waiting = manage("run_as_leader", "--role", "nightly", "--", "work", "journal")
    with coord.Coordinator(url) as c:
        eventually(lambda: c.candidates("nightly"))
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 143
    assert result(waiting)[:2] == (0, "nightly token 2\n")


def test_a_lost_role_ends_with_77(manage: Manage) -> None:
    words = ("run_as_leader", "--role", "nightly", "--", "work", "journal", "--lose")
    status, _, err = result(manage(*words))
    assert status == 77
    assert err == "CommandError: lost the leadership of 'nightly' (token 1): stepped_down\n"


def test_a_short_job_keeps_the_role_for_a_while(manage: Manage) -> None:
    words = (
        "run_as_leader",
        "--role",
        "nightly",
        "--no-wait",
        "--at-least",
        "60",
        "--",
        "work",
        "j",
    )
    assert result(manage(*words))[0] == 0
    assert result(manage(*words))[0] == 75


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("--role", "", "--", "work", "j"), 2, "invalid role ''"),
        (("--role", "r", "--ttl", "0", "--", "work", "j"), 2, "invalid ttl 0.0"),
        (("--role", "r"), 2, "missing COMMAND: write the management command to run after --"),
        (("--role", "r", "--", "wrok"), 2, "invalid COMMAND 'wrok': must be a management command; did you mean work?"),
        (("--", "work", "j"), 2, "the following arguments are required: --role"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused_before_it_waits(
    manage: Manage, words: tuple[str, ...], status: int, says: str
) -> None:
    exit_status, out, err = result(manage("run_as_leader", *words))
    assert (exit_status, out) == (status, "")
    assert says in err
    assert "Traceback" not in err


def test_the_setting_names_the_store(manage: Manage, tmp_path: Path) -> None:
    other = f"sqlite://{tmp_path}/other.db"
    words = ("run_as_leader", "--role", "nightly", "--", "work", "journal")
    assert result(manage(*words, settings=f"COORD_URL = {other!r}"))[0] == 0
    assert urls.open_admin(other).exists()


def test_the_tests_of_a_project_use_memory(manage: Manage) -> None:
    status, _, err = result(manage("test"))
    assert status == 0, err
    assert "Ran 2 tests" in err


SEVERAL = "DEBUG = False\nALLOWED_HOSTS = ['a.example', 'b.example']\n"


@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ("", 0, "no issues"),
        ("DEBUG = True\nALLOWED_HOSTS = ['*']", 0, "no issues"),
        ("DEBUG = False\nALLOWED_HOSTS = ['a.example']", 0, "no issues"),
        (SEVERAL, 1, "coord.W001"),
        ("DEBUG = False\nALLOWED_HOSTS = ['.example']", 1, "coord.W001"),
        (SEVERAL + "COORD_URL = 'postgresql://db1/app'", 0, "no issues"),
        (SEVERAL + "SILENCED_SYSTEM_CHECKS = ['coord.W001']", 0, "no issues"),
        ("COORD_URL = 'mysql://me:geheim@db1/app'", 1, "coord.E001"),
    ],
)
def test_the_system_check(manage: Manage, settings: str, status: int, says: str) -> None:
    exit_status, out, err = result(manage("check", "--fail-level", "WARNING", settings=settings))
    assert says in out + err
    assert exit_status == status
    assert "geheim" not in out + err
