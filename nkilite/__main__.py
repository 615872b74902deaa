"""`python -m nkilite`: the command line."""

from __future__ import annotations

import typer

from nkilite.cli import cache, gallery
from nkilite.cli.compile import compile
from nkilite.cli.debug import debug
from nkilite.cli.docs import docs
from nkilite.cli.draw import draw
from nkilite.cli.failure import run_command
from nkilite.cli.opt import opt
from nkilite.cli.profile import profile
from nkilite.cli.run import run
from nkilite.cli.targets import targets
from nkilite.cli.terminal import version_option
from nkilite.cli.topologies import topologies

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="NKI kernels on any CPU: run, compile, profile and inspect them.",
)
app.callback()(version_option("nkilite"))
app.command()(compile)
app.command()(opt)
app.command()(debug)
app.command()(profile)
app.command()(draw)
app.command()(docs)
app.command()(targets)
app.command()(topologies)
app.add_typer(cache.app, name="cache")
app.add_typer(gallery.app, name="gallery")
# Options after the program's name belong to the program.
app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})(run)


def main() -> None:
    """Entry point of the `nkilite` command. The errors of nkilite say all a user needs, without a traceback."""
    run_command(app, "nkilite")


if __name__ == "__main__":
    main()
