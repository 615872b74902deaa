"""`python -m autotune`."""

from autotune.command import main

main()
