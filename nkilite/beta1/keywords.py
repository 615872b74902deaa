"""Keywords of Beta-1 functions: those that have no effect here, and the error for any that there is not.

The dialect's functions are documented to take further keywords without naming them. Those below are documented or
written by public kernels, and steer the vendor's compiler or choose hardware: no value depends on them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from nkilite.runtime.configs import unknown

F = TypeVar("F", bound=Callable[..., object])

_LOOPS = frozenset({"directives", "multi_buffer", "precise_schedule"})
_TENSORS = frozenset({"lazy_initialization"})
_WITHOUT_EFFECT: dict[str, frozenset[str]] = {
    "nisa.activation": frozenset({"buffer"}),
    "nisa.dma_transpose": frozenset({"dge_mode"}),
    "nisa.reciprocal": frozenset({"engine"}),
    "nl.affine_range": _LOOPS,
    "nl.all_reduce": frozenset({"asynchronous", "parallel_reduce"}),
    "nl.full": _TENSORS,
    "nl.multiply": frozenset({"max_free_vec_size"}),
    "nl.ndarray": _TENSORS,
    "nl.ones": _TENSORS,
    "nl.sequential_range": _LOOPS,
    "nl.static_range": _LOOPS,
    "nl.zeros": _TENSORS,
}
_LABELS = frozenset({"name"})  # what an instruction is called in a profile: any function takes it
_OF_LANGUAGE = frozenset({"matmul", "transpose"})  # instructions that are functions of nl alone


def check(name: str, own: Iterable[str], given: Iterable[str]) -> None:
    """Refuse the keywords of a call that its function does not have.

    Args:
        name: the function, as users write it.
        own: the parameters that have an effect.
        given: the other keywords of the call.

    Raises:
        UnknownKeyword: one is neither a parameter nor known to have no effect.
    """
    known = tuple(dict.fromkeys((*own, *sorted(_WITHOUT_EFFECT.get(name, frozenset()) | _LABELS))))
    for keyword in given:
        if keyword not in known:
            raise unknown(name, keyword, known)


def check_call(function: Callable[..., object], given: Iterable[str]) -> None:
    """`check` for a function that one of the decorators has made public."""
    name = function.__name__
    instruction = function.__module__.startswith("nkilite.beta1.isa.") and name not in _OF_LANGUAGE
    check(f"{'nisa' if instruction else 'nl'}.{name}", inspect.signature(function).parameters, given)


def public(function: F) -> F:
    """A function of the dialect that takes keywords without effect, and refuses those there are not."""
    own = frozenset(inspect.signature(function).parameters)

    @functools.wraps(function)
    def made(*args: object, **given: object) -> object:
        if not own.issuperset(given):
            others = given.keys() - own
            check_call(function, sorted(others))
            for keyword in others:
                del given[keyword]
        return function(*args, **given)

    return cast(F, made)
