"""What profiles state of their error is what the calibration found, and the page says the same."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from benchmarks.calibration.report import document
from nkilite.profiling.accuracy import accuracy_of, measurements

PAGE = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text()


def test_the_page_and_the_statement_are_of_one_table() -> None:
    rows = measurements()
    assert document(rows) == PAGE
    assert median(abs(m.error) for m in rows) < 0.085


def test_the_statement_is_about_rows_that_were_held_out() -> None:
    unseen = [m for m in measurements() if m.held_out]
    for kind in ("compiler-managed compute-bound", "as-written small"):
        same = [m for m in unseen if m.kind == kind]
        found = accuracy_of(kind, "trn1", 500.0, ())
        assert found.rows == len(same if found.kind else unseen)
        rows = same if found.kind else unseen
        inside = [found.low_us <= 500 * (m.measured_us / m.modelled_us) <= found.high_us for m in rows]
        assert sum(inside) >= 0.8 * len(rows)


def test_a_kernel_unlike_those_measured_is_warned_of() -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        a = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=a, src=x)
        nisa.tensor_tensor(dst=a, data1=a, data2=a, op=nl.add, engine=nisa.engine.gpsimd)
        nisa.dma_copy(dst=out, src=a)
        return out

    found = nki.profile(kernel, np.zeros((128, 64), np.float32), target="trn3")
    assert "no kernel was measured on trn3" in found.error
    assert "no measured kernel computes on GpSimd" in found.error
    assert found.accuracy.low_us <= found.latency_us <= found.accuracy.high_us
    assert found.captured_us > found.latency_us
