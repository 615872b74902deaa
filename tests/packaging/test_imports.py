"""What an import of nkilite brings with it: nothing that a launch does not need."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "IPython", "autotune", "grpc", "jax", "matplotlib", "optuna", "pandas", "plotly", "psycopg", "rich", "scipy",
    "sqlalchemy", "torch", "typer",
}


def test_import_of_nkilite() -> None:
    program = f"import sys, nkilite; print(*sorted(sys.modules.keys() & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True, timeout=60)
    assert done.stdout.split() == []
