"""What more ranks are good for: a tensor-parallel MLP and a sequence-parallel attention on 1 to 64 of them (modelled).

`python -m benchmarks scaling --write` puts the tables into docs/scaling.md. Nothing is run: each row is a profile of
one rank of two cores, on a topology.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

import nkilite as nki
from kernels.ring_attention import ring_attention
from kernels.tensor_parallel_mlp import tensor_parallel_mlp
from nkilite.profiling import Profile
from nkilite.profiling.overlap import communication, exposed_us
from nkilite.profiling.text import time_text

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
RANKS = (1, 2, 4, 8, 16, 32, 64)
TARGET, CORES = "trn2", 2


class Study(NamedTuple):
    """A kernel on more and more ranks.

    Attributes:
        arguments: those of a rank, by the number of ranks.
        cases: (ranks, topology); None for the smallest that holds them.
        work: how it grows with the ranks.
    """

    kernel: nki.Kernel
    arguments: Callable[[int], tuple]
    cases: tuple[tuple[int, str | None], ...]
    work: Callable[[int], int] = lambda ranks: 1


def _array(*shape: int) -> np.ndarray:
    return np.zeros(shape, ml_dtypes.bfloat16)


def mlp(ranks: int, tokens: int = 2048, H: int = 4096, F: int = 16384) -> tuple:
    """2,048 tokens of 4,096 features through 16,384 hidden units, of which every rank has its share."""
    share = F // ranks
    return _array(tokens, H), _array(H, share), _array(H, share), _array(share, H), ranks


def attention(ranks: int, heads: int = 2, S: int = 16384, D: int = 128) -> tuple:
    """16,384 queries and keys of two heads, of which every rank has its share."""
    return *(_array(heads, S // ranks, D) for _ in range(3)), ranks


def longer_attention(ranks: int) -> tuple:
    """2,048 queries and keys for every rank."""
    return attention(ranks, S=2048 * ranks)


STRONG = tuple((ranks, None) for ranks in RANKS)
STUDIES = {
    "mlp": Study(tensor_parallel_mlp, mlp, STRONG),
    "attention": Study(ring_attention, attention, STRONG),
    "longer": Study(ring_attention, longer_attention, STRONG, lambda ranks: ranks**2),
    "topologies": Study(tensor_parallel_mlp, mlp, tuple(
        (ranks, name)
        for ranks, names in (
            (64, ("trn2-48xlarge", "trn2-mesh", "trn2-ring")), (128, ("trn2-ultraserver", "trn2-cluster"))
        )
        for name in names
    )),
}


def row(study: Study, ranks: int, topology: str | None, alone: Profile | None) -> tuple[Profile, list[str]]:
    """The profile of one rank, and its line of the table; `alone` is that of a single rank."""
    found = nki.profile(study.kernel[CORES], *study.arguments(ranks), target=TARGET, topology=topology)
    collectives = communication(found)
    name = found.world.topology.name if found.world is not None else "–"
    first = found if alone is None else alone
    gain = first.latency_us / found.latency_us * study.work(ranks)
    algorithms = ", ".join(dict.fromkeys(c.collective.transfer.algorithm for c in collectives))
    return found, [
        str(ranks), name, time_text(found.latency_us), f"{gain:.1f}", f"{gain / ranks:.0%}", f"{found.mfu:.0%}",
        time_text(sum(c.busy_us for c in collectives)) if collectives else "–",
        time_text(exposed_us(found)) if collectives else "–", algorithms or "–", found.bottleneck,
    ]


HEADINGS = (
    "ranks", "topology", "latency", "speed-up", "efficiency", "MFU", "communication", "not hidden", "by", "busiest",
)


def table(name: str) -> str:
    """A study as a table in Markdown; speed-ups are over one rank."""
    study = STUDIES[name]
    alone, lines = None, []
    if study.cases[0][0] != 1:
        alone, _ = row(study, 1, None, None)
    for ranks, topology in study.cases:
        found, cells = row(study, ranks, topology, alone)
        alone = alone or found
        lines.append(cells)
    rows = [HEADINGS, ("---:",) * len(HEADINGS), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}; default: all")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    options = parser.parse_args()
    unknown = set(options.studies) - set(STUDIES)
    if unknown:
        parser.error(f"{sorted(unknown)[0]} is none of {', '.join(STUDIES)}")
    for name in options.studies or STUDIES:
        made = table(name)
        print(f"{name} (modelled)\n{made}\n", flush=True)
        if options.write:
            text = PAGE.read_text()
            block = f"<!-- {name}: modelled, by python -m benchmarks scaling --write -->\n"
            PAGE.write_text(re.sub(re.escape(block) + r"(\|.*\n)*", lambda _, b=block, m=made: f"{b}{m}\n", text))


if __name__ == "__main__":
    main()
