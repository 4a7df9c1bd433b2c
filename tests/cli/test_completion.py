"""Tab, for real: bash sources what `coord completion bash` prints, and is asked what it would
offer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import coord
from tests.support.commands import run_here
from tests.support.processes import Runs, python_environment
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url
pytestmark = pytest.mark.needs("bash")

SCRIPT = """
source "{completion}"
COMP_WORDS=({words}); COMP_CWORD={at}; COMP_LINE="{line}"
_coord_completion coord
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


class Bash:
    """A bash that finds `coord` on its path."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        command = tmp_path / "bin" / "coord"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m coord "$@"\n')
        command.chmod(0o755)
        self._completion = tmp_path / "completion"
        status, script, _ = run_here("completion", "bash")
        assert status == 0
        self._completion.write_text(script)
        path = f"{command.parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, **python_environment(), "COORD_URL": url}

    def offers(self, *words: str) -> list[str]:
        """What Tab offers after these words; the last one is begun."""
        quoted = " ".join(f"'{word}'" for word in ("coord", *words))
        script = SCRIPT.format(
            completion=self._completion,
            words=quoted,
            at=len(words),
            line=" ".join(("coord", *words)),
        )
        done = subprocess.run(
            ["bash", "--norc", "--noprofile", "-c", script],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stderr == ""
        return sorted(done.stdout.split("\n")[:-1]) if done.stdout.strip() else []


@pytest.fixture
def bash(tmp_path: Path, url: str) -> Bash:
    return Bash(tmp_path, url)


@pytest.mark.stores("sqlite")
def test_commands_and_options(bash: Bash) -> None:
    assert bash.offers("s") == ["services", "share", "slots", "status", "step-down"]
    assert bash.offers("status", "--a") == ["--all"]
    assert bash.offers("completion", "") == ["bash", "fish", "zsh"]


def test_roles_and_candidates(bash: Bash, runs: Runs) -> None:
    def expect(offers: list[str], *words: str) -> None:
        """Wait for them: on a busy machine the store may answer too late for one Tab."""
        eventually(lambda: bash.offers(*words) == offers)

    with coord.connect(runs.url) as c, coord.connect(runs.url) as other:
        for role in ("sync", "sync-2", "report", "two words", "$(evil)", "new\nline", "-x"):
            assert c.unique_service(role, {"ttl": 60})
        expect(["sync", "sync-2"], "leader", "sy")
        expect(["report", "sync", "sync-2"], "step-down", "")
        expect(["report"], "run", "re")
        expect(["report"], "watch", "--json", "re")
        lead = other.leadership("sync", ttl=1)
        lead.start()
        try:
            eventually(lambda: c.candidates("sync"))
            expect([lead.candidate], "transfer", "sync", "--to", "")
            assert bash.offers("transfer", "report", "--to", "") == []
        finally:
            lead.stop()


@pytest.mark.stores("sqlite")
def test_it_is_silent_when_the_store_is_not_there(bash: Bash, url: str) -> None:
    bash.environment["COORD_URL"] = f"{url}-other"
    assert bash.offers("leader", "") == []
    assert not Path(f"{url}-other".removeprefix("sqlite://")).exists()
    bash.environment["COORD_URL"] = "rethinkdb://127.0.0.1:1/db"
    assert bash.offers("leader", "") == []
    bash.environment["COORD_URL"] = "nonsense"
    assert bash.offers("leader", "") == []


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_what_their_shell_takes(runs: Runs, shell: str, tmp_path: Path) -> None:
    status, out, err = runs.answer("completion", shell)
    assert (status, err) == (0, "")
    assert "_COORD_COMPLETE" in out
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(out)
        subprocess.run([shell, "-n", str(script)], check=True, timeout=20)
