"""What the build adds to pyproject.toml: the README as package indexes show it, where links into the repository lead
nowhere. The documentation is in the package, so that they become commands that print it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\[([^\]]+)\]\(([^):#]+)(?:#[^)]*)?\)")


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _LINK.sub(_command, text)}


def _command(link: re.Match[str]) -> str:
    """What stands for a link to a page: its text, and the command that prints the page."""
    text, target = link.groups()
    page = target.removeprefix("docs/").rsplit(".", 1)[0].rstrip("/")
    command = f"`nkilite docs {page}`" if page else "`nkilite docs`"
    return command if text == target else f"{text} ({command})"
