"""The pages in a real Chromium: they follow changes, show foreign text as text, are usable with a
keyboard and a screen reader, on a telephone, in light and dark."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from coord import Coordinator
from tests.support import requirements
from tests.support.chromium import Browser, Page
from tests.support.levels import some
from tests.support.running import running
from tests.support.waits import WITHIN
from tests.web.pictures import LIVE, PICTURES, SHOWN, take
from tests.web.scene import EVIL, Scene, address, command

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow, pytest.mark.xdist_group("chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    requirements.need("chromium")
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    url = f"sqlite://{tmp_path_factory.mktemp('web')}/coord.db"
    with Coordinator(url) as c:
        c.unique_service("first", {"ttl": 5})
    with running(command("--bind", "127.0.0.1:0"), url) as server:
        made = Scene(url, server)
        made.lead(EVIL, name=EVIL, host="x", pid=1, about=EVIL)
        yield made
        made.close()


def check(page: Page, scene: Scene) -> None:
    """Nothing went wrong in the page, and it asked its own server only."""
    assert page.problems() == []
    assert page.hosts() == {scene.page.split("/")[2]}


def axe(page: Page) -> list[str]:
    """What axe-core finds wrong, rule by rule."""
    script = importlib.resources.files("axe_core_python") / "axe.min.js"
    page.value(script.read_text(encoding="utf-8") + "; 0")
    violations = page.value("axe.run().then((results) => JSON.stringify(results.violations))")
    return [
        f"{load['id']}: {load['help']}: {[node['html'] for node in load['nodes']]}"
        for load in json.loads(violations)
    ]


PATHS = ("", "roles/press", f"roles/{quote(EVIL, safe='')}", "services", "roles/unknown")


LOOKS = [(1100, False), (1100, True), (360, False), (360, True)]
"""The width in pixels, and whether the colors are dark."""


@pytest.mark.parametrize(
    "look", some(LOOKS, lambda look: look in ((1100, True), (360, False)), name=str)
)
def test_axe_finds_nothing(look: tuple[int, bool], browser: Browser, scene: Scene) -> None:
    width, dark = look
    for path in PATHS:
        with browser.page(scene.page + path, width=width, dark=dark) as page:
            if path != "roles/unknown":
                page.until(LIVE)
                check(page, scene)
            assert axe(page) == [], path
            assert page.value("document.documentElement.scrollWidth <= innerWidth"), path
            background = page.value("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(255, 255, 255)") is not dark


def test_axe_finds_what_is_wrong(browser: Browser, scene: Scene) -> None:
    with browser.page(scene.page) as page:
        page.until(LIVE)
        page.value("document.querySelector('.store').style.color = '#ddd'; 0")
        page.value("document.documentElement.removeAttribute('lang'); 0")
        assert {item.partition(":")[0] for item in axe(page)} == {"color-contrast", "html-has-lang"}


def test_pages_follow_changes_without_a_reload(browser: Browser, scene: Scene) -> None:
    with browser.page(scene.page) as roles, browser.page(f"{scene.page}roles/press") as role:
        for page in (roles, role):
            page.until(LIVE)
            page.value("window.notReloaded = true")
        row = "document.querySelector('[data-key=press]').innerText"
        assert "two (pid 733 on b.example)" in roles.value(row)
        role.until("document.querySelectorAll('rect').length === 2")
        facts = "document.querySelector('[data-facts]').innerText"
        assert "two (pid 733 on b.example)" in role.value(facts)
        scene.leader.step_down(cooldown=0.1)
        roles.until(f"{row}.includes('three (pid 9 on c.example)')")
        roles.until(f"{row}.includes('stepped_down')")
        role.until("document.querySelectorAll('rect').length === 3")
        role.until(f"{facts}.includes('three')")
        assert "token 3: three" in role.value("document.querySelector('svg').textContent")
        with Coordinator(scene.c.url) as later:
            later.leadership("a new role").acquire(timeout=WITHIN)
            roles.until("document.querySelector('[data-key=\"a new role\"]') !== null")
        for page in (roles, role):
            assert page.value("window.notReloaded")
            check(page, scene)
        scene.waits.step_down()
        roles.until(f"{row}.includes('two (pid 733 on b.example)')")


def test_foreign_text_is_only_ever_text(browser: Browser, scene: Scene) -> None:
    with browser.page(scene.page) as page:
        page.until(LIVE)
        assert EVIL in page.text
        page.value("[...document.querySelectorAll('tbody a')].at(0).click()")
        page.until("location.pathname.includes('onerror')")
        page.until(LIVE)
        assert page.value("document.querySelector('h1').textContent") == EVIL
        assert f"about={EVIL}" in page.text.replace("'", "")
        assert page.value("document.images.length") == 0
        check(page, scene)


def test_a_keyboard_is_enough(browser: Browser, scene: Scene) -> None:
    with browser.page(scene.page) as page:
        page.until(LIVE)
        places = []
        focus = "document.activeElement.textContent.trim().slice(0, 20)"
        script = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        for _ in range(20):
            page.press("Tab")
            places.append(page.value(focus))
            assert page.value(script), places
            if places[-1] == "press":
                break
        assert places[:4] == ["Skip to the content", "coord", "Roles", "Services"]
        # An update does not take the focus away.
        page.value("document.querySelector('[data-key=press] td:nth-child(5)').textContent = 'x'")
        page.until("document.querySelector('[data-key=press] td:nth-child(5)').textContent !== 'x'")
        assert page.value(focus) == "press"
        page.press("Enter")
        page.until("location.pathname === '/roles/press'")


def test_it_says_when_it_is_not_up_to_date(browser: Browser, tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/coord.db"
    with Coordinator(url) as c:
        c.unique_service("press", {"ttl": 5})
    with running(command("--bind", "127.0.0.1:0"), url) as server:
        where = address(server)
        with browser.page(where) as page:
            page.until(LIVE)
            assert page.value("document.getElementById('live').role") == "status"
            server.stop()
            page.until("document.getElementById('live').textContent.startsWith('Not up to date')")
            with running(command("--bind", where.split("/")[2]), url):
                page.until(LIVE)


def test_the_pictures_of_the_documentation_show_these_pages(
    browser: Browser, tmp_path: Path
) -> None:
    assert {path.stem for path in PICTURES.glob("web-*.png")} == set(SHOWN)
    take(browser, tmp_path)
    for name in SHOWN:
        shown, taken = ((place / f"{name}.png").read_bytes() for place in (PICTURES, tmp_path))
        assert shown[:8] == taken[:8] == b"\x89PNG\r\n\x1a\n"
        # The width. Times, and with them the places of texts, differ from run to run.
        assert shown[16:20] == taken[16:20], "write them again: python -m tests.web.pictures"
        assert len(shown) < 100_000
