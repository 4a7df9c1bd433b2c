"""What mkdocs is told beyond its configuration: what pages link to in examples/ and tests/ is on
the site, too, and a file that a page only links to is shown on the page."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LANGUAGES = {
    "service": "ini",
    "timer": "ini",
    "cfg": "ini",
    "conf": "nginx",
    "yaml": "yaml",
    "yml": "yaml",
    "py": "python",
}
SHOWN = re.compile(rf"^\[[^\]]+\]\(([\w./-]+\.({'|'.join(LANGUAGES)}))\)$", re.MULTILINE)
"""A link to a file beside the page, alone on its line: the site shows the file below it."""
OUTSIDE = re.compile(r"\]\(((?:\.\./)+)((?:examples|tests)/[^)#\s]+)\)")


def _linked(page: str) -> list[tuple[str, str]]:
    """The files outside of docs/ that a page links to: as it is written there, and from the top of
    the repository."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    folder = posixpath.dirname(f"docs/{page}")
    return [
        (up + rest, posixpath.normpath(f"{folder}/{up}{rest}"))
        for up, rest in OUTSIDE.findall(text)
    ]


def on_files(files: Files, config: Any) -> Files:
    for page in [one.src_uri for one in files.documentation_pages()]:
        for _, path in _linked(page):
            if files.get_file_from_path(f"source/{path}") is None and (ROOT / path).is_file():
                files.append(
                    File.generated(config, f"source/{path}", abs_src_path=str(ROOT / path))
                )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri == "changelog.md":
        return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    here = posixpath.dirname(page.file.src_uri)
    for written, path in _linked(page.file.src_uri):
        markdown = markdown.replace(
            f"]({written})", f"]({posixpath.relpath(f'source/{path}', here or '.')})"
        )

    def shown(link: re.Match[str]) -> str:
        text = (ROOT / "docs" / here / link[1]).read_text(encoding="utf-8")
        return f"{link[0]}\n\n```{LANGUAGES[link[2]]}\n{text.rstrip()}\n```"

    return SHOWN.sub(shown, markdown)
