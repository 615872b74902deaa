"""`python -m autotune`."""

from autotune.cli.command import main

main()
