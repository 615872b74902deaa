"""`python -m nkilite`: the command line."""

from __future__ import annotations

import typer

from nkilite.cli.compile import compile
from nkilite.cli.profile import profile
from nkilite.cli.run import run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="NKI kernels on any CPU: run, compile, profile and inspect them.",
)
app.command()(compile)
app.command()(profile)
# Options after the program's name belong to the program.
app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})(run)


def main() -> None:
    """Entry point of the `nkilite` command."""
    app(prog_name="nkilite")


if __name__ == "__main__":
    main()
