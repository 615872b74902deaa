"""docs/calibration.md: every row of the comparison, pairs in order, and single transfers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11
    import tomli as tomllib

import nkilite.profiling
from nkilite.machine import engine as costs
from nkilite.machine.target import get_target
from nkilite.profiling.accuracy import Measurement

__all__ = ["DOCUMENT", "TABLE", "document", "families"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "calibration.md"
TABLE = Path(nkilite.profiling.__path__[0]) / "measurements.json"
_ROWS = Path(__file__).with_name("rows.toml")
_APART = 0.03  # measured latencies closer than this are no pair


def families() -> list[dict[str, Any]]:
    """The families of rows.toml."""
    found: list[dict[str, Any]] = tomllib.loads(_ROWS.read_text())["family"]
    return found


def published() -> dict[tuple[str, str], dict[str, Any]]:
    """What profiles say of rows, by family and row, as in rows.toml."""
    return {(p["family"], p["row"]): p for p in tomllib.loads(_ROWS.read_text())["profile"]}


def document(rows: Sequence[Measurement]) -> str:
    """The page."""
    right, pairs = _order(rows)
    lines = [_HEAD, "| kind | rows | median error | within 25 % | held out | median error, held out |",
             "|---|---:|---:|---:|---:|---:|"]
    for kind in [*sorted({m.kind for m in rows}), "all"]:
        errors = [abs(m.error) for m in rows if kind in (m.kind, "all")]
        unseen = [abs(m.error) for m in rows if kind in (m.kind, "all") and m.held_out]
        near = sum(e <= 0.25 for e in errors) / len(errors)
        lines.append(
            f"| {kind} | {len(errors)} | {median(errors):.1%} | {near:.0%} | {len(unseen)} "
            f"| {f'{median(unseen):.1%}' if unseen else '–'} |"
        )
    lines += ["", f"Of {pairs} pairs of versions of a kernel at one size, measured more than 3 % apart, {right}",
              "come out in the order in which they were measured.", "", "## Every row", ""]
    for family in families():
        mine = [m for m in rows if m.family == family["name"]]
        options = ", --disable-dge" if family.get("disable_dge") else ""
        use = "**held out**" if family.get("held_out") else "used to choose rules"
        lines += [f"### {family['name']}", "",
                  f"{family['source']}. {family['target']}, {family['written']}{options}, "
                  f"{family['quantity']}; {use}.", "",
                  "| row | measured | modelled | error | bound by |", "|---|---:|---:|---:|---|"]
        lines += [
            f"| {m.row} | {_time(m.measured_us)} | {_time(m.modelled_us)} | {m.error:+.1%} | {m.bound} |" for m in mine
        ]
        lines.append("")
    lines += _profiled(rows)
    lines += ["## Single DMA transfers on trn2 (DMA overview)", "", "| what | published | modelled | error |",
              "|---|---:|---:|---:|"]
    lines += [f"| {what} | {p:.4g} {u} | {m:.4g} {u} | {m / p - 1:+.1%} |" for what, p, m, u in _transfers()]
    return "\n".join([*lines, "", _REMARKS])


def _profiled(rows: Sequence[Measurement]) -> list[str]:
    """Of the rows whose profiles were published: the busiest engine and the bytes, as measured and as modelled."""
    some = [m for m in rows if m.measured_bound or m.measured_hbm_bytes]
    bound, counted = [m for m in some if m.measured_bound], [m for m in some if m.measured_hbm_bytes]
    named = sum(m.bound == m.measured_bound for m in bound)
    exact = sum(m.hbm_bytes == m.measured_hbm_bytes for m in counted)
    lines = [
        "## Engines and bytes", "",
        f"Of {len(bound)} launches whose busiest engine was published, the model names it for {named}.",
        f"Of {len(counted)} whose HBM bytes were, it counts those read and written to the byte for {exact}.", "",
        "| row | busiest, measured | modelled | bytes read and written, measured | modelled |",
        "|---|---|---|---:|---:|",
    ]
    for m in some:
        measured, modelled = (" + ".join(f"{n:,}" for n in b) for b in (m.measured_hbm_bytes, m.hbm_bytes))
        busiest = m.measured_bound or "–"
        lines.append(f"| {m.family}, {m.row} | {busiest} | {m.bound} | {measured or '–'} | {modelled} |")
    return [*lines, ""]


def _order(rows: Sequence[Measurement]) -> tuple[int, int]:
    """How many pairs of versions of a kernel come out in the right order, and how many there are."""
    versions: dict[tuple, list[Measurement]] = {}
    for m in rows:
        versions.setdefault(_problem(m), []).append(m)
    right = pairs = 0
    for group in versions.values():
        for one, other in combinations(group, 2):
            if abs(one.measured_us / other.measured_us - 1) > _APART:
                pairs += 1
                right += (one.measured_us > other.measured_us) == (one.modelled_us > other.modelled_us)
    return right, pairs


def _problem(m: Measurement) -> tuple:
    """What the versions of a kernel have in common: what is computed, and on which sizes."""
    words = m.row.split()
    family = m.family.split()[0].rstrip(",")
    if m.family.startswith("Qwen3 matmul"):
        return "Qwen3 matmul", next(w for w in words if w in ("gate_up", "q_proj", "both"))
    if m.family.startswith("attention of"):
        return m.family, *words[1:4]
    if m.family in ("RMSNorm", "copies"):
        return m.family, *words
    if family in ("MLP", "attention", "mamba"):
        return family, m.target, *words[1:]
    if family == "vector":
        return m.family, words[-1]
    if family == "NKIBench":
        return family, m.row
    return (m.family.partition(",")[0] if family in ("autocomp", "conv1d") else m.family,)


def _transfers() -> Iterator[tuple[str, float, float, str]]:
    """(what, published, modelled, unit) of single transfers on trn2, from the DMA overview."""
    chip = get_target("trn2")
    yield "[4, 4096] bf16 to SBUF, one engine", 1416.0, costs.dma(chip, 4, 8192, partitions=4).transfer_ns, "ns"
    yield "one 2 KiB packet", 97.0, costs.dma(chip, 16, 2048, partitions=128).transfer_ns, "ns"
    issue = costs.dma_issue_ns(chip, generated=True)
    for size, share in ((256, 10.3), (512, 20.6), (1024, 42.0), (2048, 81.0), (4096, 96.6), (8192, 98.3)):
        cost = costs.dma(chip, 128, size, partitions=128)
        rate = cost.bytes_moved / max(cost.transfer_ns, issue) / (16 * chip.dma_bytes_per_ns)
        yield f"throughput, {size} bytes per partition (plot)", share, 100 * rate, "% of peak"


def _time(us: float) -> str:
    return f"{us / 1000:.3f} ms" if us >= 1000 else f"{us:.1f} µs"


_HEAD = """# Calibration of the timing model

Every `modelled` figure comes from `nkilite.profile` in `compiler` order; every `measured` one was measured on the
chip by the authors of the source. Written by `python -m benchmarks calibration FOLDER` from
benchmarks/calibration/rows.toml. The model has no constant of any single kernel; every constant names its source in
nkilite/machine/targets/trn1.toml. [timing-model.md](timing-model.md) says what is modelled.

Rows are *used* if a rule or a constant of the model was chosen with a look at their error, and *held out* if none
was. A profile states the error of the held-out rows of its kind where there are five of them, else of all held-out
rows. Errors of used rows are smaller than those to expect of a kernel that the model has never seen.
"""

_REMARKS = """## What to make of it

- nc_latency is what nki.benchmark reports; a captured profile of the same launch is 4 to 10 µs longer. `latency_us` of
  a profile is the former, `captured_us` the latter.
- Profiles of allenkchau/trainium-kernel-fusion list every instruction and DMA packet. From them: the cold Tensor
  Engine, the start of activations, float32 tensor_scalar, the distance of packets (4096, 2048, 512 and 256 bytes in
  155, 80, 23.5 and 14 ns), generators that hold the Scalar Engine while they make descriptors of stores, and that the
  vendor's compiler loads a tensor once if it fits.
- Not explained: mamba_v2 at 8192 channels, which spills: as a kernel that the vendor's compiler manages it comes out
  25 % too slow, as written (as here) 7 % too fast; phases that pass tensors through HBM (attention baseline at 1024),
  which the compiler overlaps less than the model; the second step of the GEMM chain, slower than the first though it
  loads less; long elementwise chains (MLP taylor float32 at 1024 x 2048 x 4096), whose split over engines is the
  compiler's.
- The held-out chains of autocomp and the transpose were modelled when the rules were done. Rows that taught a rule
  since then are used now: a step of the mamba chain (one partition beside many is repeated by the Tensor Engine), the
  chain of sd attention (transposed loads and stores), and a convolution and a transpose as written (contents of a tile
  that is filled again have memory of their own; `--disable-dge`). No constant was changed for them.
- The course's harness compiles with `--disable-dge` where it takes a profile: descriptors are then made before the
  launch, and a transpose of 64 small tiles takes half of what it takes with generators (86 µs, another measurement of
  nearly the same kernel). Rows whose source is such a run say so in rows.toml.
- Vector additions as others measured them, and the other convolutions, were held out from the start.
- Of NKIBench's kernels, half was used. They say how much of SBUF the compiler fills before it spills, and that
  products of a tile and a number run on the Scalar Engine. Not explained: which intermediate results adamw keeps in
  PSUM, and what silu waits for, whose engines are busy as long as measured.
- The last step of the conv1d chain taught that the compiler makes one instruction of a small loop whose iterations are
  independent (it takes a tenth of the time of the one before, with the same instructions). Of the steps of autocomp's
  attention, then held out, it brings most within a tenth, from up to 45 % too slow. Not explained: the two steps
  before it, whose larger loops keep parts in PSUM and take 60 to 70 % of what their instructions would.
- How rows are split: those of a source are held out from the start, or by the SHA-256 of their names (NKIBench); one
  that a rule was chosen with is used from then on, with what is like it. gqa_full of NKIBench is one, spilled when
  spilling was modelled; so are copies and matmuls with large blocks among the kernels of a workshop
  (yahavb/trainium-agent-labs), which show the rate of DMA and that a tile which does not fit behind the one before it
  overlaps that as little as it can.
- Kernels of that workshop run with NKI 0.6.0, as written. Not explained: 128 loads of one row each take 0 to 110 ns
  apiece (rmsnorm_start; the model has 600, as 128 rows have), loads of the tiled matmul 390 to 490 ns, and those of a
  head 670 to 900 (attention of heads), of 128 rows all.
- The first steps of autocomp's attention keep all scores in PSUM, 64 times what it holds. That these go to SBUF (and
  on to HBM) was modelled when the third was seen 40 % too fast (now 22 %), and what is computed from reloaded tiles
  when mamba's first was seen 19 % too fast (now 2 %): rows of both were held out until then, and are used now.
  The first step of its mamba chain computes a product again for tiles that it loads again: the compiler merges the
  loads only.
- Of two kernels of NKIBench, 27 tiles of 512 KiB are loaded twice, where the model keeps them on chip.
- Some steps of the attention chain differ in nothing but their text, and were measured 15 % apart: pairs of them have
  no order.
- neuronx-cc 2.21 reads an identity matrix of float32 as 16,384 bytes, version 2.23 as 65,536; the model follows the
  latter.
- Left out: a transpose of chenhzhu/asst4-trainium2, whose profile shows other transfers than its kernel has; and
  Jerry2423/kda-for-trainium, which reports 37.8 float32 TFLOPS and 800 GB/s for a core of trn2, twice what is
  published as its peak. What its figures are of is not known.
- The plotted DMA throughput below 2 KiB per partition is what 850 to 880 ns per transfer give, whatever its size, and
  explained by no figure of bytes, descriptors or triggers; matmul version 2, bound by triggers, comes out right with
  600 ns. The worked example of the same page (1416 ns) has a lower rate than packets have in profiles of kernels.
"""
