"""The metadata that depends on the address of the repository: the project's URLs and the README.

The address is `repository` in `[tool.hatch.metadata.hooks.custom]` of pyproject.toml. While it is
empty, there are no URLs, and the README's links stay relative. With an address they become
absolute, and lead to the files of this version, because PyPI shows the README without its files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?![a-z]+:|#)[^)\s]+)\)")


def absolute_links(text: str, repository: str, version: str) -> str:
    """Return a Markdown text with absolute links to the files of a version."""

    def absolute(link: re.Match[str]) -> str:
        view = "raw" if link["image"] else "blob"
        target = f"{repository}/{view}/v{version}/{link['target']}"
        return f"{link['image']}[{link['text']}]({target})"

    return LINK.sub(absolute, text)


def urls(repository: str) -> dict[str, str]:
    """Return the URLs of the project, for the sidebar of PyPI."""
    return {
        "Homepage": repository,
        "Documentation": f"{repository}/blob/HEAD/docs/index.md",
        "Source": repository,
        "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class MetadataHook(MetadataHookInterface):
    """Fills in the dynamic fields `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = self.config["repository"].rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if repository:
            text = absolute_links(text, repository, metadata["version"])
            metadata["urls"] = urls(repository)
        else:
            metadata["urls"] = {}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
