"""`python -m benchmarks.calibration FOLDER`: the timing model against published measurements.

FOLDER holds checkouts of aws-neuron/aws-neuron-sdk and awslabs/nki-autotune (in folders of those names). The kernels
are taken from there unchanged, modelled by `nkilite.profile`, and compared with the figures their authors publish.
Writes docs/calibration.md and prints it. Nothing in the model depends on which kernel it is given.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np

import nkilite as nki
from nkilite import compat
from nkilite.machine import engine as costs
from nkilite.machine.target import get_target

SDK, AUTOTUNE = "aws-neuron-sdk", "nki-autotune"
DOCUMENT = Path(__file__).parents[1] / "docs" / "calibration.md"
OPTIMIZATION = "SDK, kernel-optimization tutorial"
MAMBA = "SDK, fused mamba tutorial"
LIBRARY = "nki-autotune, kernel library"


@dataclass
class Row:
    """One published measurement.

    Attributes:
        bound: what limits the kernel in the model: Tensor, Vector, ... are compute, DMA is memory.
        note: what makes the comparison less than exact.
    """

    source: str
    kernel: str
    target: str
    published_us: float
    modelled_us: float
    bound: str
    note: str = ""

    @property
    def error(self) -> float:
        return self.modelled_us / self.published_us - 1


def load(path: Path, name: str) -> Any:
    """Import a kernel file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def row(source: str, name: str, target: str, published_us: float, kernel: Callable[..., Any], *args: Any) -> Row:
    print(f"{name} on {target} ...", file=sys.stderr)
    found = nki.profile(kernel, *args, target=target)
    note = "does not fit SBUF: spills are not counted" if found.overflow else ""
    return Row(source, name, target, published_us, found.latency_us, found.bottleneck, note)


def optimization_tutorial(folder: Path) -> Iterator[Row]:
    """Versions 2 to 5 of the matmul; the latencies stand in the profile pictures v2-full.png to v5-full.png."""
    text = (folder / SDK / "nki/guides/tutorials/kernel-optimization.rst").read_text()
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:[ \t]+.*\n|\n)+)", text)
    versions = [textwrap.dedent(b) for b in blocks if "def matrix_multiply_kernel" in b]
    measured_ms = {2: 39.894938, 3: 28.197982, 4: 28.414015, 5: 28.301971}
    lhs, rhs = np.empty((8192, 4096), np.float32), np.empty((8192, 8192), np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        for version, ms in measured_ms.items():
            path = Path(scratch) / f"version_{version}.py"
            path.write_text(versions[version - 1])
            module = load(path, f"kernel_optimization_{version}")
            name = f"matmul version {version}, 4096x8192x8192 f32"
            yield row(OPTIMIZATION, name, "trn2", ms * 1000, module.matrix_multiply_kernel, lhs, rhs)


def kernel_library(folder: Path) -> Iterator[Row]:
    """Two 2048^3 bf16 matmuls with measured MFU (of a 78.6 TFLOPS peak)."""
    square = np.empty((2048, 2048), ml_dtypes.bfloat16)
    peak = get_target("trn2").matmul_flops_per_ns("bfloat16")
    for file, name, mfu in (
        ("lhsT_rhs/kernel_hand_90.92mfu.py", "matmul_lhsT_rhs_nkigym", 0.9092),
        ("lhs_rhs/kernel_handtuned_89.26mfu.py", "matmul_lhs_rhs_nkigym", 0.8926),
    ):
        module = load(folder / AUTOTUNE / "kernel_library/matmul" / file, name)
        published_us = 2 * 2048**3 / peak / mfu / 1000
        yield row(LIBRARY, f"{name}, 2048^3 bf16", "trn2", published_us, getattr(module, name), square, square)


def mamba_tutorial(folder: Path) -> Iterator[Row]:
    """Latencies in the text, and the table over sequence lengths."""
    module = load(folder / SDK / "nki/examples/fused_mamba/mamba_nki_kernels.py", "mamba_nki_kernels")
    table_ms = {  # seq_len: mamba_v2, mamba_v3
        1024: (4.4, 3.3), 2048: (8.9, 6.6), 3072: (13.1, 10.1), 4096: (17.6, 13.3), 5120: (23.7, 17.3),
        6144: (27.5, 19.6), 7168: (41.3, 24.2), 8192: (52.2, 27.8),
    }
    cases = [("mamba_v1", 256, 512, 0.17293), ("mamba_v1", 4096, 512, 2.34), ("mamba_v2", 4096, 512, 1.61),
             ("mamba_v3", 4096, 512, 1.6)]
    cases += [(f"mamba_v{v}", 4096, n, ms) for n, both in table_ms.items() for v, ms in zip((2, 3), both, strict=True)]
    for name, channels, length, ms in cases:
        by_channel = np.empty((1, channels, length), np.float32)
        by_state = np.empty((1, 16, length), np.float32)
        states = np.empty((channels, 16), np.float32)
        found = row(
            MAMBA, f"{name}, {channels} channels, seq_len {length}", "trn1", ms * 1000, getattr(module, name),
            by_channel, by_channel, states, by_state, by_state,
        )
        if name == "mamba_v1":
            found.note = "measured with the loops over states and channels exchanged"
        yield found


PAIRS = [  # (slower, faster) as published
    *((f"matmul version {a}", f"matmul version {b}") for a, b in ((2, 3), (2, 4), (2, 5), (4, 5))),
    ("matmul_lhs_rhs", "matmul_lhsT_rhs"),
    ("mamba_v1, 4096 channels, seq_len 512", "mamba_v2, 4096 channels, seq_len 512"),
    *(
        (f"mamba_v2, 4096 channels, seq_len {n}", f"mamba_v3, 4096 channels, seq_len {n}")
        for n in range(1024, 8193, 1024)
    ),
]


def dma_figures() -> Iterator[tuple[str, float, float, str]]:
    """(what, published, modelled, unit) of single transfers on trn2, from the DMA overview."""
    chip = get_target("trn2")
    yield "[4, 4096] bf16 to SBUF, one engine", 1416.0, costs.dma(chip, 4, 8192, partitions=4).transfer_ns, "ns"
    yield "one 2 KiB packet", 97.0, costs.dma(chip, 16, 2048, partitions=128).transfer_ns, "ns"
    issue = costs.dma_issue_ns(chip, generated=True)
    for size, share in ((256, 10.3), (512, 20.6), (1024, 42.0), (2048, 81.0), (4096, 96.6), (8192, 98.3)):
        cost = costs.dma(chip, 128, size, partitions=128)
        rate = cost.bytes_moved / max(cost.transfer_ns, issue) / (16 * chip.dma_bytes_per_ns)
        yield f"throughput, {size} bytes per partition (plot)", share, 100 * rate, "% of peak"


def report(rows: list[Row]) -> str:
    """The document."""
    compute = [abs(r.error) for r in rows if r.bound != "DMA" and not r.note]
    lines = [
        "# Calibration of the timing model", "",
        "Every `modelled` figure comes from `nkilite.profile` in `compiler` order; every `published` one was measured",
        "on the chip by the authors of the source. Written by `python -m benchmarks.calibration FOLDER`; the model has",
        "no constant of any single kernel. [timing-model.md](timing-model.md) says what is modelled and from where.",
        "",
        f"- median error, all {len(rows)} rows: **{median(abs(r.error) for r in rows):.1%}**",
        f"- median error, {len(compute)} compute-bound rows without a note: **{median(compute):.1%}**",
        f"- largest error: {max(abs(r.error) for r in rows):.1%}", "",
        "| source | kernel | target | published | modelled | error | bound by | note |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.source} | {r.kernel} | {r.target} | {_time(r.published_us)} | {_time(r.modelled_us)} "
            f"| {r.error:+.1%} | {r.bound} | {r.note} |"
        )
    lines += ["", "## Published before/after pairs", "", "| slower | faster | published | modelled | order |",
              "|---|---|---:|---:|---|"]
    for slow, fast in PAIRS:
        a, b = (next(r for r in rows if r.kernel.startswith(name)) for name in (slow, fast))
        right = (a.published_us > b.published_us) == (a.modelled_us > b.modelled_us)
        lines.append(
            f"| {slow} | {fast} | {a.published_us / b.published_us:.3f}x | {a.modelled_us / b.modelled_us:.3f}x "
            f"| {'right' if right else 'WRONG'} |"
        )
    lines += ["", "## Single DMA transfers on trn2 (DMA overview)", "", "| what | published | modelled | error |",
              "|---|---:|---:|---:|"]
    lines += [f"| {what} | {p:.4g} {u} | {m:.4g} {u} | {m / p - 1:+.1%} |" for what, p, m, u in dma_figures()]
    return "\n".join([*lines, "", _REMARKS])


_REMARKS = """## What to make of it

- No row is held out: the model was written with these rows in sight, and most come from three sources. Expect larger
  errors elsewhere. Constants read off profiles above: the time of a descriptor (packet times of matmul versions 2 and
  3, and the 2 KiB packet), the distance of DMA triggers (published as about 600 ns, seen in version 2, which is bound
  by it), the launch overhead of 22 µs (mamba_v1 with 256 channels, 13% of its latency).
- Rules chosen because these rows support them: the Vector and Scalar Engine do not hide the published 60 cycles of a
  memory access; a broadcast that fits a PSUM bank is read there; open copies are shared between engines; the compiler
  computes the product of delta and u once instead of once per state (the picture of mamba_v2 at seq_len 8192 shows four
  Vector instructions per state). Without the first and the last, the median error over all rows was 12.5%.
- All instruction costs are the published formulas. Where the Vector Engine reads a broadcast from PSUM and where from
  SBUF follows from the size of a bank, for every kernel alike.
- The tutorial measured an older mamba_v1 than the one in the repository, with the loop over states outside.
- The compiler of the time spilled mamba_v2 at long sequences. The model does not spill; where tiles do not fit, it
  reuses memory as a ring, and the result is a lower bound.
- The plotted DMA throughput below 2 KiB per partition is what 850 to 880 ns per transfer give, whatever its size. That
  is no cost of bytes or of descriptors (the packets of matmul version 2, 512 bytes each, take 30 ns; 108 ns would be
  needed), and no distance of triggers either: two pages say 600 ns, and matmul version 2, which is bound by it, comes
  out at 39.7 ms with 600 ns and at 56.8 ms with 860 ns, where 39.9 ms were measured. The published documents do not say
  how the plot was taken, so the model keeps 600 ns, and understates a train of small transfers that repeats the plot by
  up to 31%.
"""


def _time(us: float) -> str:
    return f"{us / 1000:.3f} ms" if us >= 1000 else f"{us:.1f} µs"


def main() -> int:
    """Compare, write the document, and fail if a published pair comes out in the wrong order."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    compat.install()
    rows = [*optimization_tutorial(folder), *kernel_library(folder), *mamba_tutorial(folder)]
    text = report(rows)
    DOCUMENT.write_text(text)
    print(text)
    return int("WRONG" in text)


if __name__ == "__main__":
    sys.exit(main())
