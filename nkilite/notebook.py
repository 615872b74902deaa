"""What notebooks show of our objects: text and tables as HTML, in which the words of users are text."""

from __future__ import annotations

import html
import io
from typing import Any

from nkilite.plain import plain

_LINES = 200  # of a long text, before the rest is only counted
_WIDTH = 140
_STYLE = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px;white-space:pre;overflow-x:auto"


def preformatted(text: str, title: str = "") -> str:
    """A text, cut where it is long; under a title that opens it, if there is one."""
    lines = plain(text).splitlines()
    more = f"\n… and {len(lines) - _LINES:,} lines more" if len(lines) > _LINES else ""
    body = f'<pre style="{_STYLE}">{html.escape(chr(10).join(lines[:_LINES]) + more)}</pre>'
    return f"<details><summary>{html.escape(plain(title))}</summary>{body}</details>" if title else body


def rendered(*parts: Any) -> str:
    """Tables and texts of rich."""
    from rich.console import Console  # a tenth of a second that launches need not pay

    console = Console(
        file=io.StringIO(), record=True, width=_WIDTH, markup=False, emoji=False, highlight=False, force_jupyter=False
    )
    for part in parts:
        console.print(part)
    return console.export_html(inline_styles=True, code_format=f'<pre style="{_STYLE}">{{code}}</pre>')


def frame(page: str, height: int = 640) -> str:
    """A whole page inside of a notebook's."""
    return (
        f'<iframe srcdoc="{html.escape(page)}" width="100%" height="{height}" style="border:0" '
        'sandbox="allow-scripts"></iframe>'
    )
