"""nki-samples: the kernels written for ``nki``, and the many files of the old dialect."""

from __future__ import annotations

from pathlib import Path

from ..case import Case, Mode
from . import references as ref
from .files import Variant, file_cases
from .matmul import matmul_launches
from .mx import mx_variants
from .programs import beta_1_cases, pytest_cases

SUITE = "nki-samples"
MATMUL = "src/nki_samples/tutorials/matrix_multiplication/matrix_multiplication_nki_kernels.py"

MICROSCALING = "src/nki_samples/tutorials/mxfp-matmul/mx_kernels.py"


def find(folder: Path) -> Path | None:
    """The checkout's root."""
    return folder if (folder / "src" / "nki_samples").is_dir() else None


def cases(root: Path) -> list[Case]:
    """All cases of the checkout."""
    found: list[Case] = []
    if (path := root / MATMUL).is_file():
        for dtype, note in ((ref.FLOAT32, ""), (ref.BFLOAT16, "bf16")):
            launches = [Variant(launch, note) for launch in matmul_launches(dtype)]
            found.extend(file_cases(SUITE, path, launches))
    if (path := root / MICROSCALING).is_file():
        # Its kernels name their target in the decorator.
        modes = (Mode.SIMULATE_TRN3, Mode.COMPILED_TRN3)
        found.extend(file_cases(SUITE, path, mx_variants(path, frozenset()), modes))
    tests = sorted((root / "test" / "unit").glob("test_*.py"))
    if (root / "src" / "nki_samples" / "reference").is_dir():  # what they test was removed with the dialect
        found.extend(pytest_cases(SUITE, root, tests, (root / "src",), leave="perf"))
    return [*found, *beta_1_cases(SUITE, root, sorted(root.rglob("*.py")), (root / "src",))]
