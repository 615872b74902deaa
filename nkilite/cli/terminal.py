"""What commands print. Every string, in tables too, is text as it stands: no markup, no control characters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

import nkilite
from nkilite.plain import plain

WIDTH = 120  # columns that tables need; logs have no width of their own


class Terminal(Console):
    """A console of rich that takes strings for what they are; what is to have a style is a rich.text.Text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """How rich makes text of every string it is given, wherever it stands."""
        return super().render_str(plain(text), **{**options, "markup": False, "emoji": False})


def terminal(width: int = WIDTH) -> Terminal:
    """The standard output; at least so wide where it is no terminal."""
    found = Terminal()
    return found if found.is_terminal else Terminal(width=max(found.width, width))


def say(text: object, error: bool = False) -> None:
    """Print lines, however long they are."""
    print(plain(str(text)), file=sys.stderr if error else sys.stdout)


def version_option(program: str) -> Callable[..., None]:
    """What a command line does before its commands: `--version`."""

    def told(wanted: bool) -> None:
        if wanted:
            say(f"{program} {nkilite.__version__}")
            raise typer.Exit

    option: Any = typer.Option(False, "--version", help="Show the version and exit.", callback=told, is_eager=True)

    def callback(version: bool = option) -> None: ...

    return callback


def styled(text: str, style: str) -> Text:
    """Text in a style."""
    return Text(plain(text), style)
