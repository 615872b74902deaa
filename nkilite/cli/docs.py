"""`python -m nkilite docs`: the documentation, wherever nkilite is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

import nkilite
from nkilite.cli.specs import CommandLineError
from nkilite.cli.terminal import say, terminal
from nkilite.plain import plain


class NoDocumentation(CommandLineError):
    template = "the documentation is not beside this installation of nkilite: {found} does not exist."
    remedy = "install nkilite from its wheel, or run from a checkout."


class UnknownPage(CommandLineError):
    template = "{found!r} is no page of the documentation; there are {choices}."
    remedy = "name one of them, or none for what each is about."


def folder() -> Path:
    """Where the pages are: inside of an installed nkilite, beside it in a checkout.

    Raises:
        NoDocumentation.
    """
    package = Path(nkilite.__file__).parent
    for found in (package / "docs", package.parent / "docs"):
        if (found / "index.md").exists():
            return found
    raise NoDocumentation(found=str(package / "docs"))


def docs(
    page: Annotated[str, typer.Argument(help="A page, such as launching; all are listed without one.")] = "",
) -> None:
    """Print a page of the documentation, or list its pages."""
    pages = {p.stem: p for p in sorted(folder().iterdir()) if p.suffix in (".md", ".ipynb")}
    if not page:
        table = Table("page", "about")
        for name, path in pages.items():
            table.add_row(name, _text(path).partition("\n")[0].lstrip("# "))
        terminal().print(table)
        return
    name = page.removeprefix("docs/").removesuffix(".md").removesuffix(".ipynb")
    if name not in pages:
        raise UnknownPage(found=page, choices=", ".join(pages))
    console, text = terminal(), _text(pages[name])
    if console.is_terminal:
        console.print(Markdown(plain(text), hyperlinks=False))
    else:
        say(text.rstrip())


def _text(path: Path) -> str:
    """A page in Markdown; of a notebook, its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells)
