"""What would be uploaded: the wheel and the source distribution are valid and complete, and the
wheel works in a clean environment with every extra."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import coord
from tests.support import requirements
from tests.support.levels import some
from tests.test_packaging import PYPROJECT, ROOT

pytestmark = pytest.mark.needs("build", "twine", "hatchling")

NO_INDEX = ("No matching distribution found", "Could not find a version", "Connection")
DEVELOPMENT = {"all", "benchmarks", "docs", "test"}
ADDRESS = "https://git.example/owner/coord"
USE = """\
import importlib, pkgutil, coord, coord.integrations, coord.web, coord.testing, coord.metrics
names = {module.name for module in pkgutil.iter_modules(coord.integrations.__path__)}
assert len(names) > 2
for name in names - {"django"}:  # there is no extra with Django
    importlib.import_module("coord.integrations." + name)
for url in ("postgresql://h/d", "redis://h", "etcd://h", "rethinkdb://h/d", "memory://"):
    coord.Coordinator(url).close()
with coord.Coordinator("memory://") as c:
    coord.web.create_app(c)
    coord.metrics.enable()
    with c.leadership("job") as lead:
        assert lead.wait(30)
print(coord.__version__, coord.__file__)
"""


def run(*command: str, cwd: Path, seconds: float = 280) -> str:
    """What a command printed. It must succeed."""
    inherited = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COORD_"))
    }  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=seconds, env=inherited
    )
    output = done.stdout + done.stderr
    if done.returncode and any(words in output for words in NO_INDEX):
        requirements.skip("package-index")
    assert done.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source distribution, from which the wheel was built."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "-o", str(out), str(ROOT), cwd=out)
    return out


def wheel(distributions: Path) -> Path:
    (file,) = distributions.glob("*.whl")
    return file


def extras() -> set[str]:
    section = PYPROJECT.partition("[project.optional-dependencies]")[2].partition("\n[project.")[0]
    return set(re.findall(r"^([a-z]+) = \[", section, re.MULTILINE))


def test_the_extra_all_has_every_extra_of_users() -> None:
    listed = re.search(r'^all = \["coord\[([a-z,]+)\]"\]', PYPROJECT, re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split(",")) == extras() - DEVELOPMENT


def test_the_version_is_the_same_everywhere() -> None:
    assert f'\nversion = "{coord.__version__}"\n' in PYPROJECT


def test_they_are_valid(distributions: Path) -> None:
    files = [str(path) for path in distributions.iterdir()]
    assert len(files) == 2
    output = run(
        sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files, cwd=distributions
    )
    assert output.count("PASSED") == 2


def test_they_contain_every_file_of_the_package(distributions: Path) -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "coord").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.endswith(".html") for name in files)
    assert "coord/py.typed" in files
    with zipfile.ZipFile(wheel(distributions)) as archive:
        assert {name for name in archive.namelist() if name.startswith("coord/")} == files
    (source,) = distributions.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= files | {"pyproject.toml", "README.md", "LICENSE", ".ci/metadata.py"}


@pytest.mark.parametrize("packages", some(["from here", "from the index"], "from here".__eq__))
def test_the_wheel_works_in_a_clean_environment_with_every_extra(
    packages: str, distributions: Path, tmp_path: Path
) -> None:
    """The packages that it needs are those of this environment, or are installed from the index."""
    run(sys.executable, "-m", "venv", "--without-pip", "clean", cwd=tmp_path)
    python = str(tmp_path / "clean/bin/python")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    # To compile every module of every package takes longer than to install them.
    if packages == "from here":
        run(
            *pip,
            "install",
            "-q",
            "--no-compile",
            "--no-deps",
            str(wheel(distributions)),
            cwd=tmp_path,
        )
        # After those of the clean environment: the coord that is imported is that of the wheel.
        purelib = sysconfig.get_path("purelib")
        (site,) = (tmp_path / "clean/lib").glob("python*/site-packages")
        (site / "packages_from_here.pth").write_text(f"{purelib}\n")
    else:
        run(*pip, "install", "-q", "--no-compile", f"{wheel(distributions)}[all]", cwd=tmp_path)
    version, file = run(python, "-W", "error", "-c", USE, cwd=tmp_path).split()
    assert version == coord.__version__
    assert Path(file).is_relative_to(tmp_path)
    output = run(str(tmp_path / "clean/bin/coord"), "--version", cwd=tmp_path)
    assert coord.__version__ in output
    if packages == "from the index":
        assert "No broken requirements" in run(*pip, "check", cwd=tmp_path)


def metadata_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metadata_hook", ROOT / ".ci/metadata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_an_address_nothing_is_invented(distributions: Path) -> None:
    assert '\nrepository = ""\n' in PYPROJECT, "then replace this test by one of the metadata"
    with zipfile.ZipFile(wheel(distributions)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    assert "Project-URL" not in text
    assert "Description-Content-Type: text/markdown" in text
    assert (ROOT / "README.md").read_text(encoding="utf-8") in text


def test_with_an_address_every_link_of_the_readme_is_absolute() -> None:
    hook = metadata_hook()
    text = hook.absolute_links((ROOT / "README.md").read_text(encoding="utf-8"), ADDRESS, "1.2.3")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith("https://")] == []
    assert f"[Deploy]({ADDRESS}/blob/v1.2.3/docs/deploy/index.md)" in text
    assert f"]({ADDRESS}/raw/v1.2.3/docs/pictures/takeover.svg)" in text
    assert "](https://kazoo.readthedocs.io/)" in text
    assert set(hook.urls(ADDRESS)) == {
        "Homepage", "Documentation", "Source", "Changelog", "Issues"
    }  # fmt: skip
