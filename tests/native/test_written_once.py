"""The code of a micro-kernel is written once for all programs of a process that have it."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.host.cpu import host
from nkilite.native import lower
from nkilite.native.compile import image_for

SMALL = np.ones((64, 32), np.float32)


def shifted(x, by):
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.add, by)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of micro-kernels as they are written."""
    monkeypatch.setattr(lower, "_kept", {})
    names: list[str] = []
    original = lower._micro_kernel

    def write(*arguments):
        found = original(*arguments)
        names.append(found[0].name)
        return found

    monkeypatch.setattr(lower, "_micro_kernel", write)
    return names


def names(image) -> list[str]:
    return [source.name for source in image.lowered.sources]


def test_programs_share_what_is_written(written) -> None:
    first = image_for(nki.jit(shifted).trace(SMALL, 1.0), host())
    assert set(written) == set(names(first))
    before = list(written)
    second = image_for(nki.jit(shifted).trace(SMALL, 2.0), host())  # another number, which is a word
    assert written == before
    assert second.lowered.sources == first.lowered.sources
    image_for(nki.jit(shifted).trace(SMALL[:, :16].copy(), 1.0), host())
    assert len(written) > len(before)


def test_a_rule_that_changes_is_asked_again(written, monkeypatch) -> None:
    image_for(nki.jit(shifted).trace(SMALL, 1.0), host())
    before = len(written)
    rules = nisa.tensor_scalar.definition.rules
    original = rules["lower"]
    monkeypatch.setitem(rules, "lower", lambda call, kernel: original(call, kernel))
    image_for(nki.jit(shifted).trace(SMALL, 1.0), host())
    assert len(written) > before


def test_only_so_many_are_kept(written, monkeypatch) -> None:
    monkeypatch.setattr(lower, "_KEPT", 2)
    for columns in range(1, 8):
        image_for(nki.jit(shifted).trace(np.ones((64, columns), np.float32), 1.0), host())
    assert len(lower._kept) <= 2
