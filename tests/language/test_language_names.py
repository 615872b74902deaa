"""The names of nki.language: completeness, constants, loops, programs, and what unknown names say."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nkilite as nki
import nkilite.language as nl
from nkilite import errors
from nkilite.dtypes import as_dtype

# The public page nki.language, with the operators named in nki.api.shared.
_PAGE = """
    tiles blocks alloc_tiles alloc_blocks NkiGrid NkiTileGrid NkiBlockGrid
    ndarray zeros ones full zeros_like empty_like shared_constant shared_identity_matrix rand random_seed
    load load_transpose2d store copy matmul transpose
    abs abs_max abs_min add arctan ceil cos divide exp floor fmod log maximum minimum mod multiply negative power
    reciprocal rsqrt sign sin sqrt square subtract tan tanh trunc
    relu sigmoid silu silu_dx gelu gelu_dx gelu_apprx_sigmoid gelu_apprx_sigmoid_dx gelu_apprx_tanh mish softplus
    softmax erf erf_dx dropout rms_norm all max mean min prod sum var
    equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor logical_not
    bitwise_and bitwise_or bitwise_xor invert left_shift right_shift broadcast_to ds expand_dims where
    gather_flattened affine_range dynamic_range sequential_range static_range fori_loop while_loop
    psum sbuf hbm private_hbm shared_hbm is_psum is_sbuf is_hbm is_on_chip device_print no_reorder
    program_id num_programs program_ndim bool_ int8 int16 int32 uint8 uint16 uint32 float16 float32 bfloat16 tfloat32
    float8_e4m3 float8_e5m2 float8_e4m3fn float8_e8m0fnu float8_e5m2_x4 float8_e4m3fn_x4 float4_e2m1fn_x4
    tile_size prelu bypass average MemoryRegion NKIObject NkiTensor
"""
DOCUMENTED = _PAGE.split()


def test_every_documented_name_exists():
    assert [n for n in DOCUMENTED if n not in nl.__all__] == []
    assert [n for n in nl.__all__ if not hasattr(nl, n)] == []
    assert len(set(nl.__all__)) == len(nl.__all__)


def test_regions():
    assert nl.hbm == nl.private_hbm == nl.hbm
    assert nl.private_hbm != nl.shared_hbm
    assert nl.hbm in {nl.private_hbm}
    assert nl.hbm not in (nl.sbuf, nl.psum, "hbm")
    assert [f(nl.sbuf) for f in (nl.is_sbuf, nl.is_psum, nl.is_hbm, nl.is_on_chip)] == [True, False, False, True]
    assert [f(nl.psum) for f in (nl.is_sbuf, nl.is_psum, nl.is_hbm, nl.is_on_chip)] == [False, True, False, True]
    for hbm in (nl.hbm, nl.private_hbm, nl.shared_hbm):
        assert [f(hbm) for f in (nl.is_sbuf, nl.is_psum, nl.is_hbm, nl.is_on_chip)] == [False, False, True, False]


def test_arguments_are_in_hbm_by_either_name():
    def kernel(x):
        assert x.buffer == nl.hbm
        assert x.buffer == nl.shared_hbm
        inside = nl.ndarray(x.shape, x.dtype, buffer=nl.hbm)
        assert inside.buffer is nl.private_hbm
        assert inside.buffer != nl.shared_hbm
        return x

    nki.simulate(kernel)(np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(
    ("target", "sbuf_size", "min_align"), [("trn1", 24 << 20, 1), ("trn2", 28 << 20, 1), ("trn3", 32 << 20, 1)]
)
def test_tile_size_follows_the_target(target, sbuf_size, min_align, monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
    size = nl.tile_size
    assert (size.pmax, size.gemm_stationary_fmax, size.gemm_moving_fmax) == (128, 128, 512)
    assert (size.psum_bank_fmax, size.psum_bank_fmax_bytes, size.psum_num_banks) == (512, 2048, 8)
    assert (size.sbuf_size_bytes, size.sbuf_min_align, size.psum_min_align) == (sbuf_size, min_align, 4)
    assert size.sbuf_fmax_bytes == 4 * size.sbuf_fmax < sbuf_size // 128
    assert size.bn_stats_fmax == 512


def test_deprecated_sizes_warn():
    with pytest.warns(DeprecationWarning, match="psum_bank_fmax"):
        assert nl.tile_size.psum_fmax == 512
    with pytest.warns(DeprecationWarning, match="sbuf_fmax_bytes"):
        assert nl.tile_size.total_available_sbuf_size == nl.tile_size.sbuf_fmax_bytes


@pytest.mark.parametrize("name", ["affine_range", "sequential_range", "static_range", "dynamic_range"])
def test_ranges(name):
    loop = getattr(nl, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [list(loop(3)) for _ in range(5)]
    assert found == [[0, 1, 2]] * 5
    assert len(caught) == 1, "one warning per line"
    assert caught[0].filename == __file__
    assert caught[0].category is DeprecationWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list(loop(2, 9, 3)) == [2, 5, 8]
        with pytest.raises(errors.InvalidOperand, match=r"stop is .*2\.5.*an int"):
            loop(0, 2.5)


def test_par_dim_is_the_size():
    with pytest.warns(DeprecationWarning, match="nl.par_dim.*dimension 0"):
        assert nl.par_dim(64) == 64


def test_range_is_pythons():
    assert nl.range is range


def test_program_of_one_core():
    assert (nl.program_id(0), nl.num_programs(), nl.num_programs((0, 1)), nl.program_ndim()) == (0, 1, 1, 0)


@pytest.mark.parametrize("operator", [nl.bypass, nl.prelu, nl.average])
def test_operators_are_not_functions(operator):
    with pytest.raises(errors.InvalidOperand, match=f"nl.{operator.__name__} as the op"):
        operator(1)


def test_dtype_aliases():
    assert nl.bool is nl.bool_
    assert nl.dtype is nki.dtype is type(nl.float32)
    assert as_dtype(np.float16) is nl.float16


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("maximun", "did you mean nl.maximum"),
        ("mgrid", "Beta-1 dialect.*\n(.*\n)*.*slices"),
        ("xyzzy", "docs/compatibility.md"),
    ],
)
def test_unknown_names(name, says):
    with pytest.raises(errors.UnknownName, match=says) as caught:
        getattr(nl, name)
    assert caught.value.location.file == __file__
    assert not hasattr(nl, name)
    with pytest.raises(ImportError):
        exec(f"from nkilite.language import {name}")


def test_unknown_names_of_nki():
    with pytest.raises(errors.UnknownName, match="docs/compatibility.md"):
        nki.xyzzy  # noqa: B018
    assert not hasattr(nki, "xyzzy")
