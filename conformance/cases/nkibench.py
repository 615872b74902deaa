"""NKIBench (in AccelOpt) and the variants of its kernels in kda-for-trainium, by the benchmark's own references.

A reference file makes inputs (``get_inputs``), lays them out (``transform_to_nki_inputs``), computes the result
(``forward``) and brings a kernel's results into its shape (``transform_nki_outputs``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..case import TRN2_MODES, Case, Launch
from ..sources import GeneratedSource, load_path

SUITE = "NKIBench"
VARIANTS = "kda-for-trainium"
_BENCHMARK = "zhang677/AccelOpt"
_SEED = 42
# The benchmark's criterion is the norm of the difference, relative to that of the result.
_TOLERANCE = {"mamba": 3e-5}
_DEFAULT_TOLERANCE = 2e-5
# Samples and variants say in prose what they expect to be imported.
_IMPORTS = """\
import numpy as np
import neuronxcc.nki as nki
import neuronxcc.nki.isa as nisa
import neuronxcc.nki.language as nl
import neuronxcc.nki.typing as nt
from neuronxcc.nki import trace
from neuronxcc.nki.language import par_dim
"""


def find(folder: Path) -> Path | None:
    """The root of a checkout of either."""
    benchmark, variants = folder / "NKIBench" / "summary.json", folder / "workspaces" / "mamba" / "runs"
    return folder if benchmark.is_file() or variants.is_dir() else None


def cases(root: Path) -> list[Case]:
    """All cases of the checkout."""
    return list(_benchmark(root) if (root / "NKIBench").is_dir() else _variants(root))


def _benchmark(root: Path) -> Iterator[Case]:
    for operator, reference in _references(root / "NKIBench").items():
        for path in sorted((root / "NKIBench" / "kernels").glob(f"{operator}_[MB]*.py")):
            yield _case(SUITE, path, operator, reference)
        name = operator.removesuffix("_single_freq_apply")
        for path in sorted((root / "samples" / "nki").glob(f"{name}_*.py")):
            yield _case(SUITE, path, operator, reference)


def _variants(root: Path) -> Iterator[Case]:
    """The variants; their references are those of a checkout of the benchmark beside this one."""
    benchmarks = [f for f in (root.parent / n for n in ("AccelOpt", _BENCHMARK.replace("/", "+"))) if f.is_dir()]
    references = _references(benchmarks[0] / "NKIBench") if benchmarks else {}
    for folder in sorted((root / "workspaces").iterdir()):
        for path in sorted((folder / "runs").glob("*.py")):
            if "def kernel(" in path.read_text(encoding="utf-8"):
                yield _case(VARIANTS, path, folder.name, references.get(folder.name))


def _references(folder: Path) -> dict[str, Path]:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {
        operator: folder / implementation["task"]
        for operator, described in summary.items()
        for case in described["cases"].values()
        for implementation in case["impls"][:1]
    }


def _case(suite: str, path: Path, operator: str, reference: Path | None) -> Case:
    source = GeneratedSource(path, path.stem, _IMPORTS + path.read_text(encoding="utf-8"))
    if reference is None:
        return Case(suite, operator, source, modes=TRN2_MODES, skip=f"needs {_BENCHMARK} beside it")
    return Case(suite, operator, source, _Launches(operator, reference).launch(), TRN2_MODES)


class _Launches:
    """The launch of one operator."""

    def __init__(self, operator: str, reference: Path) -> None:
        self._operator, self._path = operator, reference

    def launch(self) -> Launch:
        return Launch("kernel", self._arguments, lambda *_: np.zeros(1), read=self._read)

    def _arguments(self) -> tuple[Any, ...]:
        return tuple(_reference(self._path).transform_to_nki_inputs(self._inputs()))

    def _inputs(self) -> Any:
        np.random.seed(_SEED)
        return _reference(self._path).get_inputs()

    def _read(self, outputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """How much the worst result exceeds the tolerance."""
        module = _reference(self._path)
        expected = module.forward(*self._inputs())
        got = module.transform_nki_outputs(outputs[0] if len(outputs) == 1 else tuple(outputs), expected)
        wanted = expected if isinstance(expected, tuple) else (expected,)
        limit = _TOLERANCE.get(self._operator, _DEFAULT_TOLERANCE)
        errors = [np.linalg.norm(ref - np.asarray(out, np.float64)) / np.linalg.norm(ref) for out, ref in
                  zip(got, wanted, strict=True)]
        return [np.maximum(np.array([max(errors)]) - limit, 0)]


@cache
def _reference(path: Path) -> ModuleType:
    return load_path(path, f"nkibench_{path.stem}")
