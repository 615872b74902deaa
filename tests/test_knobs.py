"""Environment variables: every value means what it says, or is an InvalidSetting."""

import numpy as np
import pytest

import nkilite as nki
import nkilite.language as nl
from nkilite import knobs
from nkilite.errors import InvalidSetting

SWITCHES = {
    "NKILITE_CACHE": knobs.cache_enabled,
    "NKILITE_FUSE": knobs.fuse,
    "NKILITE_VERIFY": knobs.verify_passes,
    "NKI_SIMULATOR": knobs.simulator,
    "NEURON_RT_STOCHASTIC_ROUNDING_EN": knobs.stochastic_rounding,
}
OTHERS = {
    "NEURON_RT_STOCHASTIC_ROUNDING_SEED": (knobs.rounding_seed, "1.5"),
    "NKILITE_CACHE_SIZE": (knobs.cache_bytes, "1Q"),
    "NKILITE_NAN": (knobs.check_nan, "loud"),
    "NKILITE_NUM_THREADS": (knobs.num_threads, "two"),
    "NKILITE_OPTIMIZE": (knobs.optimize, "sometimes"),
    "NKILITE_RACES": (knobs.races, "yes"),
    "NKILITE_RECYCLE": (knobs.recycled_bytes, "-1"),
    "NKILITE_SPECIALIZATIONS": (knobs.specializations, "0"),
}


@pytest.mark.parametrize("variable", SWITCHES)
def test_switches(variable, monkeypatch) -> None:
    switch = SWITCHES[variable]
    monkeypatch.delenv(variable, raising=False)
    default = switch()
    for values, meaning in (("1 true On YES", True), ("0 false Off NO", False)):
        for value in values.split():
            monkeypatch.setenv(variable, value)
            assert switch() is meaning, value
    monkeypatch.setenv(variable, "")
    assert switch() is default
    monkeypatch.setenv(variable, "maybe")
    with pytest.raises(InvalidSetting, match=f"{variable}='maybe' is not 1 or 0"):
        switch()


@pytest.mark.parametrize("variable", OTHERS)
def test_values(variable, monkeypatch) -> None:
    read, wrong = OTHERS[variable]
    monkeypatch.delenv(variable, raising=False)
    default = read()
    monkeypatch.setenv(variable, "")
    assert read() == default
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(InvalidSetting, match=f"{variable}='{wrong}' is not"):
        read()


def test_sizes(monkeypatch) -> None:
    for text, size in (("0", 0), ("4096", 4096), ("512k", 512 << 10), ("3M", 3 << 20), ("2G", 2 << 30)):
        monkeypatch.setenv("NKILITE_RECYCLE", text)
        assert knobs.recycled_bytes() == size


@pytest.mark.parametrize("variable", SWITCHES)
def test_a_launch_says_so(variable, monkeypatch) -> None:
    @nki.jit
    def doubled(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nl.store(out, nl.add(tile, tile))
        return out

    x = np.ones((4, 8), np.float32)
    monkeypatch.setenv(variable, "maybe")
    with pytest.raises(InvalidSetting, match=f"{variable}='maybe'"):
        doubled(x)
    monkeypatch.delenv(variable)
    assert (doubled(x) == 2).all()
