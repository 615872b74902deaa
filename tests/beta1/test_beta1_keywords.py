"""Every function of the dialect takes its documented keywords and those without effect, and refuses all others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from beta1_testing import check, random

import nkilite as now
from nkilite import beta1 as nki
from nkilite.beta1 import compiler as ncc
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import keywords
from nkilite.beta1 import language as nl
from nkilite.beta1.jax_call import nki_call
from nkilite.errors import InvalidIndex, NkiError, UnknownKeyword

# Functions that take exactly their parameters: Python refuses others.
EXACT = {
    "nisa.get_nc_version", "nl.arange", "nl.ds", "nl.dslice", "nl.expand_dims", "nl.finfo", "nl.fp32",
    "nl.num_programs", "nl.program_id", "nl.program_ndim", "nl.spmd_dim", "nl.static_cast", "nl.bypass",
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{prefix}.{name}": getattr(module, name)
    for prefix, module in (("nisa", nisa), ("nl", nl)) for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
OPEN = sorted(set(FUNCTIONS) - EXACT)


def parameters(function: Callable[..., Any]) -> list[str]:
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


def arguments(function: Callable[..., Any]) -> list[None]:
    """One for each parameter that must be given."""
    given = inspect.signature(function).parameters.values()
    return [None for p in given if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("name", OPEN)
def test_an_invented_keyword_is_refused(name: str) -> None:
    function = FUNCTIONS[name]
    with pytest.raises(UnknownKeyword) as caught:
        function(*arguments(function), invented=1)
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    assert caught.value.location is not None
    assert (caught.value.location.file, caught.value.location.line) == (__file__, line)
    name = f"{name.partition('.')[0]}.{function.__name__}"  # a name may be another one's
    assert f"{name} has no parameter 'invented'" in str(caught.value)
    assert all(parameter in str(caught.value) for parameter in parameters(function))


@pytest.mark.parametrize("name", sorted(EXACT & set(FUNCTIONS)))
def test_an_exact_function_takes_no_other_keyword(name: str) -> None:
    with pytest.raises((TypeError, NkiError)):
        FUNCTIONS[name](*arguments(FUNCTIONS[name]), invented=1)


@pytest.mark.parametrize("name", OPEN)
def test_documented_keywords_are_accepted(name: str) -> None:
    """None is no valid value of most: all that counts is that no keyword is refused."""
    function = FUNCTIONS[name]
    own = [p for p in parameters(function) if p not in ("dtype", "shape")]
    for keyword in (*own, *keywords._WITHOUT_EFFECT.get(name, ()), "name"):
        given = dict.fromkeys((*parameters(function)[: len(arguments(function))], keyword))
        try:
            function(**given)
        except UnknownKeyword as error:
            pytest.fail(f"{name}({keyword}=): {error}")
        except Exception:  # of the values
            pass


def test_tables_name_functions() -> None:
    assert set(keywords._WITHOUT_EFFECT) <= set(FUNCTIONS)


def test_a_misspelt_keyword_names_the_nearest() -> None:
    @nki.jit
    def kernel(x: Any) -> Any:
        out = nl.ndarray((8, 1), dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.sum(nl.load(x), axis=1, keepdim=True))
        return out

    with pytest.raises(UnknownKeyword, match=r"nl\.sum has no parameter 'keepdim'") as caught:
        kernel(random(8, 16))
    assert "did you mean keepdims?" in str(caught.value)
    assert caught.value.location is not None
    assert caught.value.location.function == "kernel"


def test_keywords_without_effect_change_nothing() -> None:
    @nki.jit
    def kernel(x: Any) -> Any:
        out = nl.ndarray((8, 16), dtype=x.dtype, buffer=nl.shared_hbm, lazy_initialization=True)
        for i in nl.affine_range(2, multi_buffer=2):
            for _ in nl.sequential_range(1, directives=None):
                rows = nl.load(x[4 * i : 4 * i + 4], name="rows")
                part = nisa.reciprocal(rows, engine=nisa.vector_engine)
                nl.store(out[4 * i : 4 * i + 4], nl.multiply(part, rows, max_free_vec_size=512))
        return out

    check(kernel, np.ones((8, 16), np.float32), random(8, 16) + 2)


def test_loops_and_allocations_refuse_others() -> None:
    with pytest.raises(UnknownKeyword, match=r"nl\.affine_range has no parameter 'stpe'"):
        nl.affine_range(8, stpe=2)
    with pytest.raises(UnknownKeyword, match="did you mean base_addr"):
        ncc.sbuf.mod_alloc(base_adr=0)


DECORATORS = {
    "jit": nki.jit, "trace": nki.trace, "baremetal": nki.baremetal, "benchmark": nki.benchmark, "profile": nki.profile,
    "nki_call": lambda f, **options: nki_call(f, random(4, 8), out_shape=random(4, 8), **options),
    "nkilite.baremetal": now.baremetal, "nkilite.benchmark": now.benchmark,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", DECORATORS)
def test_decorators_take_options_of_the_vendor_and_no_others(name: str) -> None:
    def kernel(x: Any, out: Any) -> None:
        nl.store(out, nl.load(x))

    options = {"experimental_flags": "a", "platform_target": "trn2", "save_neff_name": "a.neff", "debug_kernel": True}
    DECORATORS[name](kernel, **options, warmup=1, iters=2, profile_nth=2, working_directory="/tmp")
    for given in ((), (kernel,)) if name != "nki_call" else ((kernel,),):
        with pytest.raises(UnknownKeyword, match=r"has no parameter 'warmpu'") as caught:
            DECORATORS[name](*given, warmpu=1)
        assert "did you mean warmup?" in str(caught.value)


def test_a_tuple_of_bounds_is_no_bound() -> None:
    nl.arange(3, 5)
    with pytest.raises(InvalidIndex):
        nl.arange((3, 5))
