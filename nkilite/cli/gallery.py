"""`python -m nkilite gallery`: the example kernels, wherever nkilite is installed."""

from __future__ import annotations

import importlib
import runpy
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import nkilite
from nkilite.cli.specs import CommandLineError
from nkilite.cli.terminal import say, terminal

app = typer.Typer(no_args_is_help=True, help="The example kernels: matmul, softmax, attention, ...")


class NoGallery(CommandLineError):
    template = "the gallery is not beside this installation of nkilite: {found} does not exist."
    remedy = "install nkilite from its wheel, or run from a checkout."


class FolderExists(CommandLineError):
    template = "{found} exists already."
    remedy = "name a folder that does not exist."


def root() -> Path:
    """The folder that holds the package `kernels`: inside of an installed nkilite, beside it in a checkout.

    Raises:
        NoGallery.
    """
    package = Path(nkilite.__file__).parent
    for folder in (package / "gallery", package.parent):
        if (folder / "kernels" / "__main__.py").exists():
            return folder
    raise NoGallery(found=str(package / "gallery" / "kernels"))


@app.command()
def run() -> None:
    """Run every kernel: answers, speed against NumPy, and what each asks of the chip."""
    sys.path.insert(0, str(root()))
    runpy.run_module("kernels", run_name="__main__", alter_sys=True)


@app.command("list")
def show() -> None:
    """Name every kernel, with its file."""
    sys.path.insert(0, str(root()))
    table = Table("kernel", "file", "in one line")
    for name in importlib.import_module("kernels").GALLERY:
        module = importlib.import_module(f"kernels.{name}")
        table.add_row(name, str(module.__file__), (module.__doc__ or "").partition("\n")[0])
    terminal().print(table)


@app.command()
def copy(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")] = Path("kernels"),
) -> None:
    """Copy the kernels into a folder of yours, to read, change and tune them.

    Raises:
        FolderExists.
    """
    if folder.exists():
        raise FolderExists(found=str(folder))
    shutil.copytree(root() / "kernels", folder, ignore=shutil.ignore_patterns("__pycache__"))
    say(f"the gallery is in {folder}")
