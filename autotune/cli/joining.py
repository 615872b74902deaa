"""Commands around a storage that several processes share: worker, proxy, dashboard."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from autotune.shared import dashboard as boards
from autotune.shared.storage import GRPC_PORT, serve
from autotune.shared.worker import URL_VARIABLE, work
from nkilite.cli.terminal import say

STORAGE_HELP = "journal:///path/study.log, postgresql://, mysql://, sqlite:///path or grpc://host:port."
StorageOption = Annotated[str, typer.Option("--storage", envvar=URL_VARIABLE, help=STORAGE_HELP)]


def worker(
    storage: StorageOption,
    kernel: Annotated[
        list[str],
        typer.Option(help="MODULE:KERNEL or FILE.py:KERNEL that may be run here, whatever the storage says; several."),
    ],
    study: Annotated[str | None, typer.Option(help="Its name; the last one that is running by default.")] = None,
    database: Annotated[Path | None, typer.Option("--database", "-d", help="Known trials, only read.")] = None,
) -> None:
    """Work on a study that `autotune run --storage` started, here or on another machine."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # lets go of what it was trying
    name, tried = work(storage, kernel, study, database)
    say(f"{name}: {tried} configuration(s) tried here")


def proxy(
    storage: StorageOption,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "localhost",
    port: Annotated[int, typer.Option()] = GRPC_PORT,
) -> None:
    """Serve a database as grpc://host:port to everybody who has the token: that in AUTOTUNE_TOKEN, or a new one."""
    serve(storage, host, port, lambda token: say(f"AUTOTUNE_TOKEN={token}"))


def dashboard(
    storage: Annotated[str | None, typer.Option("--storage", envvar=URL_VARIABLE, help=STORAGE_HELP)] = None,
    database: Annotated[Path | None, typer.Option("--database", "-d", help="A database of trials instead.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "localhost",
    port: Annotated[int, typer.Option()] = boards.PORT,
) -> None:
    """Show studies in a browser, with optuna-dashboard."""
    boards.show(storage, database, host, port)
