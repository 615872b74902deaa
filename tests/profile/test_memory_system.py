"""Descriptors made by software and hardware, and channels of the device memory, in the model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.dtypes import bfloat16, float32
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.isa.channels import busiest
from nkilite.machine.target import get_target

_MODE = nisa.dge_mode


def chip(tmp_path: Path, **fields: float) -> str:
    file = tmp_path / "chip.toml"
    file.write_text('inherits = "trn2"\n' + "".join(f"{name} = {value}\n" for name, value in fields.items()))
    return str(file)


def beside_gpsimd(mode):
    """Loads whose descriptors are made as `mode` says, beside work of the GpSimd Engine that needs none of them."""

    def kernel(x):
        counted = nl.ndarray((128, 1024), dtype=nl.int32, buffer=nl.sbuf)
        for i in range(8):
            tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
            nisa.dma_copy(tile, x[:, 64 * i : 64 * (i + 1)], dge_mode=mode)
            nisa.iota(counted, [[1, 1024]], offset=i)
        out = nl.ndarray(counted.shape, dtype=nl.int32, buffer=nl.shared_hbm)
        nisa.dma_copy(out, counted, dge_mode=mode)
        return out

    return nki.jit(kernel)


def test_software_descriptors_hold_gpsimd(tmp_path):
    x = np.ones((128, 512), np.float32)
    spans = {mode: nki.profile(beside_gpsimd(mode), x, target="trn2").span_us for mode in (_MODE.hwdge, _MODE.swdge)}
    slow = nki.profile(beside_gpsimd(_MODE.swdge), x, target=chip(tmp_path, software_dge_ns=2000.0)).span_us
    each = get_target("trn2").software_dge_ns / 1000
    assert spans[_MODE.swdge] > spans[_MODE.hwdge] + 7 * each
    assert slow > spans[_MODE.swdge] + 7 * (2.0 - each)


@pytest.mark.parametrize("target", ["trn1", "trn2"])
def test_rows_with_an_index_each_are_described_by_software(target):
    def kernel(table, rows):
        index, tile = nl.load(rows), nl.ndarray((64, 32), dtype=table.dtype, buffer=nl.sbuf)
        nisa.dma_copy(tile, table.ap([[32, 64], [1, 32]], 0, vector_offset=index, indirect_dim=0))
        out = nl.ndarray((64, 32), dtype=table.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, tile)
        return out

    arrays = np.ones((100, 32), np.float32), np.arange(64, dtype=np.uint32).reshape(64, 1)
    profile = nki.profile(nki.jit(kernel), *arrays, target=target)
    held = [float(ns) for ns in profile.workload.busy_ns]
    assert held[1] == get_target(target).software_dge_ns
    assert held[0] == (get_target(target).dge_issue_ns if target == "trn2" else get_target(target).dma_trigger_ns)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data(), channels=st.integers(1, 9),
    interleave=st.sampled_from([4, 16, 24, 256]), dtype=st.sampled_from([float32, bfloat16]),
)
def test_the_busiest_channel(shape, data, channels, interleave, dtype):
    """Against every byte's channel, for views whose runs do not overlap."""
    strides, extent = [], 1
    for n in reversed(shape):
        strides.insert(0, extent + data.draw(st.integers(0, 40)))
        extent = strides[0] * n
    target = get_target("trn2")
    fields = {"hbm_channels": channels, "hbm_interleave_bytes": interleave}
    given = type(target)(**{**vars_of(target), **fields})
    view = ViewType.of(MemoryRegion.shared_hbm, dtype, tuple(shape), tuple(strides))
    at = sum(np.arange(n).reshape(-1, *[1] * (len(shape) - 1 - i)) * s for i, (n, s) in enumerate(zip(shape, strides)))
    bytes_ = (np.ravel(at)[:, None] * dtype.itemsize + np.arange(dtype.itemsize)).ravel()
    assert busiest(view, given) == np.bincount(bytes_ // interleave % channels).max()


def vars_of(target):
    return {name: getattr(target, name) for name in target.__dataclass_fields__}


def test_what_is_read_again_counts_once():
    target = get_target("trn2")
    given = type(target)(**{**vars_of(target), "hbm_channels": 4, "hbm_interleave_bytes": 64})
    view = ViewType.of(MemoryRegion.shared_hbm, float32, (128, 64), (0, 1))
    assert busiest(view, given) == 64


def test_channels_bound_transfers_only_where_a_target_has_them(tmp_path):
    def kernel(x):
        tile = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(tile, x[:, :64])
        out = nl.ndarray(tile.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, tile)
        return out

    def load_ns(columns, target):
        profile = nki.profile(nki.jit(kernel), np.ones((128, columns), np.float32), target=target)
        return float(profile.workload.transfer_ns[0])

    channels = chip(tmp_path, hbm_channels=64, hbm_interleave_bytes=256)
    rate = get_target("trn2").device_hbm_bytes_per_ns / 64
    assert load_ns(4096, "trn2") == load_ns(4160, "trn2") == load_ns(4160, channels)
    assert load_ns(4096, channels) == pytest.approx(128 * 256 / rate)


def test_page(tmp_path, monkeypatch, capsys):
    """docs/memory-system.md: its examples run and print what it shows."""
    page = (Path(__file__).parents[2] / "docs" / "memory-system.md").read_text()
    script = tmp_path / "example.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.S)))
    monkeypatch.chdir(tmp_path)
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == "".join(re.findall(r"```text\n(.*?)```", page, re.S))
