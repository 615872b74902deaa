"""First launches on several threads: what they make at once, and forget, is not in use."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
    import ctypes
    import gc

    import numpy as np

    import nkilite as nki
    import nkilite.language as nl
    from nkilite.native import entry

    @nki.jit
    def double(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.multiply(nl.load(x), 2.0))
        return out

    x = np.ones((4, 4), np.float32)
    double(x)
    entry._definition.cache_clear()  # as when another thread's, made at the same time, takes its place
    gc.collect()
    others = [ctypes.create_string_buffer(b"\\xff" * 31, 32) for _ in range(1000)]  # in freed memory, if there is some
    assert (double(x) == 2).all()
    del double
    gc.collect()
"""


def test_a_definition_outlives_the_cache():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], cwd=ROOT, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "NKILITE_CACHE": "0", "NKILITE_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
