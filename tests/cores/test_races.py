"""When races between cores are looked for, and what is said of them."""

from __future__ import annotations

import warnings

import pytest
from cores_testing import half, launches, loaded
from races_testing import X, around

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors


def both_write_everything(core, x, out, tile):
    nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=float(1 - core))
    nisa.dma_copy(out, tile)


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_one_array_that_is_two_arguments(mode, monkeypatch):
    def kernel(x, y):
        core = nl.program_id(0)
        nisa.dma_copy(y[half(1 - core, 8)], loaded(x[half(core, 8)]))
        return y

    monkeypatch.setenv("NKILITE_RACES", "error")
    launch, array = launches(kernel)[mode], X.copy()
    launch(array, X.copy())
    with pytest.raises(errors.DataRace, match="the cores race for x"):
        launch(array, array)


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_what_the_setting_does(mode, monkeypatch):
    launch = launches(around(both_write_everything))[mode]
    with pytest.warns(errors.RaceWarning, match="core 1 at .*test_races.py") as caught:
        launch(X)
    assert {w.filename for w in caught} == {__file__}
    monkeypatch.setenv("NKILITE_RACES", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        launch(X)
    monkeypatch.setenv("NKILITE_RACES", "error")
    with pytest.raises(errors.DataRace):
        launch(X)
    monkeypatch.setenv("NKILITE_RACES", "yes")
    with pytest.raises(errors.InvalidSetting, match="warn, error, off"):
        launch(X)


def test_a_kernel_from_the_disk_cache_warns_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NKILITE_VERIFY", "0")
    for _ in range(2):
        with pytest.warns(errors.RaceWarning):
            nki.jit(around(both_write_everything))[2](X)
