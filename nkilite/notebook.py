"""What notebooks show of our objects: text and tables as HTML, in which the words of users are text."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING

from nkilite.later import later
from nkilite.plain import plain

if TYPE_CHECKING:
    from rich import console
else:
    console = later("rich.console")  # a tenth of a second that launches need not pay

_LINES = 200  # of a long text, before the rest is only counted
_WIDTH = 140
_STYLE = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px;white-space:pre;overflow-x:auto"


def preformatted(text: str, title: str = "") -> str:
    """A text, cut where it is long; under a title that opens it, if there is one."""
    lines = plain(text).splitlines()
    more = f"\n… and {len(lines) - _LINES:,} lines more" if len(lines) > _LINES else ""
    body = f'<pre style="{_STYLE}">{html.escape(chr(10).join(lines[:_LINES]) + more)}</pre>'
    return f"<details><summary>{html.escape(plain(title))}</summary>{body}</details>" if title else body


def rendered(*parts: object) -> str:
    """Tables and texts of rich."""
    made = console.Console(
        file=io.StringIO(), record=True, width=_WIDTH, markup=False, emoji=False, highlight=False, force_jupyter=False
    )
    for part in parts:
        made.print(part)
    return made.export_html(inline_styles=True, code_format=f'<pre style="{_STYLE}">{{code}}</pre>')


def frame(page: str, height: int = 640) -> str:
    """A whole page inside of a notebook's."""
    return (
        f'<iframe srcdoc="{html.escape(page)}" width="100%" height="{height}" style="border:0" '
        'sandbox="allow-scripts"></iframe>'
    )
