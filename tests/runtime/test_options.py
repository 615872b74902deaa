"""Options of decorators, configurations of nki.compiler, and names of older releases."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import nkilite as nki
import nkilite.language as nl
from nkilite import compiler, errors
from nkilite.runtime import ignored
from nkilite.runtime.configs import NestedConfigIgnored

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def doubled(x):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.multiply(nl.load(x), 2.0))
    return out


def runs(kernel, *arrays):
    np.testing.assert_array_equal(kernel(*(arrays or (X,))), 2 * X)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "torchxla", "platform_target": "trn2", "debug_kernel": True, "show_compiler_tb": True},
        {"experimental_flags": "skip-non-top-level-shared-hbm-check", "enable_out_of_bound_check": False},
        {"compile_config": compiler.CompileConfig(address_rotation=compiler.AddressRotation.DISABLE)},
        {"compile_config": None, "specialization_config": compiler.SpecializationConfig(True)},
    ],
)
def test_options_change_nothing(options):
    runs(nki.jit(**options)(doubled))
    runs(nki.jit(doubled, **options))
    runs(nki.jit(fn=doubled, **options))
    runs(nki.jit(func=doubled, **options))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: nki.jit(compile_confg=None), errors.UnknownKeyword, "did you mean compile_config"),
        (lambda: nki.jit(doubled, frobnicate=1), errors.UnknownKeyword, "no parameter 'frobnicate'"),
        (lambda: nki.jit(compile_config={}), errors.InvalidOperand, "an nki.compiler.CompileConfig"),
        (lambda: compiler.CompileConfig(dead_code_elim=1), errors.InvalidOperand, "dead_code_elim is .*True or False"),
        (lambda: compiler.CompileConfig(dead_code=True), errors.UnknownKeyword, "did you mean dead_code_elim"),
        (lambda: compiler.CompileConfig("auto"), errors.InvalidOperand, "address_rotation is .*AddressRotation"),
    ],
)
def test_mistakes(make, error, match):
    with pytest.raises(error, match=match) as caught:
        make()
    assert (caught.value.location.file, caught.value.location.line) == (__file__, make.__code__.co_firstlineno)


@pytest.mark.parametrize("name", ["skip_middle_end_transformations", "enable_stack_allocator", "force_auto_alloc"])
def test_directives_leave_the_kernel_as_it_is(name):
    directive = getattr(compiler, name)
    kernel = nki.jit(doubled)
    assert directive(kernel) is kernel
    assert directive(log_level=50)(kernel) is kernel


def test_older_names():
    with pytest.warns(DeprecationWarning, match="nki.simulate_kernel"):
        runs(lambda x: nki.simulate_kernel(nki.jit(doubled), x))
    with pytest.warns(DeprecationWarning, match="nki.baremetal"):
        runs(nki.baremetal(doubled))
    with pytest.warns(DeprecationWarning, match="nki.baremetal"):
        runs(nki.baremetal(save_neff_name="a.neff")(doubled))


def test_variables_that_are_not_honoured_are_named_once(monkeypatch):
    monkeypatch.setattr(ignored, "_named", set())
    monkeypatch.setenv("NKI_PRECISE_FP", "1")
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "2")
    monkeypatch.setenv("NKI_LNC1_SHARED_HBM", "0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs(nki.jit(doubled))
        runs(nki.simulate(doubled))
    assert [str(w.message).split()[0] for w in caught] == ["NEURON_RT_NUM_CORES", "NKI_PRECISE_FP"]
    assert {w.filename for w in caught} == {__file__}


@pytest.mark.parametrize("name", [
    "NEURON_FRAMEWORK_DEBUG", "NEURON_RT_DEBUG_OUTPUT_DIR", "NKI_COMPILER_FRONTEND",
    "NKI_DMA_TRANSPOSE_AS_PE_TRANSPOSE", "NKI_LNC1_SHARED_HBM", "NKI_PRECISE_FP", "NKI_PREFETCH_RING_SIZE",
])
def test_every_documented_variable_is_honoured_or_named(monkeypatch, name):
    monkeypatch.setattr(ignored, "_named", set())
    monkeypatch.setenv(name, "1")
    with pytest.warns(UserWarning, match=f"{name} is set; nkilite does not honour it"):
        runs(nki.jit(doubled))


# --- kernels that call others ----------------------------------------------------------------------------------------

LEGAL = compiler.CompileConfig(non_ssa_legalization=True)


def called(own=None, outer=None, allowed=None):
    """A kernel that calls one; with the compile_config of each, and whether another one is allowed."""

    @nki.jit(compile_config=own)
    def inner(x):
        return nl.load(x)

    @nki.jit(
        compile_config=outer,
        specialization_config=None if allowed is None else compiler.SpecializationConfig(allowed),
    )
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, inner(x))
        return out

    return kernel


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize(("own", "outer"), [
    (None, None), (None, LEGAL), (LEGAL, LEGAL), (compiler.CompileConfig(), None), (None, compiler.CompileConfig()),
])
def test_nested_kernels_whose_configurations_agree(own, outer, simulated, recwarn) -> None:
    kernel = called(own, outer)
    np.testing.assert_array_equal((nki.simulate(kernel) if simulated else kernel)(X), X)
    assert not [w for w in recwarn if issubclass(w.category, NestedConfigIgnored)]


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("outer", [None, compiler.CompileConfig(barrier_check=True)])
def test_nested_kernels_whose_configurations_do_not(outer, simulated) -> None:
    launched = nki.simulate if simulated else (lambda kernel: kernel)
    wrong = "'inner'.*non_ssa_legalization is True there and False here"
    with pytest.raises(errors.NestedConfig, match=wrong) as caught:
        launched(called(LEGAL, outer, False))(X)
    assert "inner(x)" in caught.value.location.source
    with pytest.warns(NestedConfigIgnored, match="kernel inner is ignored"):
        np.testing.assert_array_equal(launched(called(LEGAL, outer, True))(X), X)


def test_configurations_stay_with_kernels() -> None:
    kernel = called(LEGAL)
    for other in (nki.jit(check_nan="warn")(kernel), copy.copy(kernel), kernel[1]):
        with pytest.raises(errors.NestedConfig):
            other(X)
    with pytest.warns(NestedConfigIgnored):
        nki.jit(specialization_config=compiler.SpecializationConfig(True))(kernel)(X)
