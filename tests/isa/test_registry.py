"""Every instruction is complete: all rules, documented parameters, and the names of the public stubs."""

from __future__ import annotations

import importlib
import inspect

import pytest

import nkilite.isa as nisa
from nkilite.ir.definition import REGISTRY, RULE_KINDS

# What nl.device_print, the loops, nkilite.gpsimd, nki.collectives, the operators of NkiScalar, indirect tensors,
# dynamic dimensions, stochastic rounding and checks for NaN write; users do not call them.
INTERNAL = {
    "advance_counters", "bounded_count", "bounded_index", "collective", "custom_operator", "device_print",
    "dma_copy_within", "fill_unwritten", "find_special", "for_begin", "for_end", "rank_number",
    "round_stochastically", "scalar_compute", "set_rounding", "tensor_indirection", "tensor_scatter",
    "while_begin", "while_end",
}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_instruction_is_complete(name: str) -> None:
    definition = REGISTRY[name]
    missing = [kind for kind in RULE_KINDS if kind not in definition.rules]
    assert not missing
    home = importlib.import_module(definition.function.__module__) if name in INTERNAL else nisa
    function = getattr(home, name)
    assert function.definition is definition
    doc = inspect.getdoc(function) or ""
    undocumented = [p.name for p in definition.parameters if (p.list or p.name) not in doc]
    assert not undocumented


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_rules_have_names_that_tracebacks_show(name: str) -> None:
    definition = REGISTRY[name]
    anonymous = [k for k, rule in definition.rules.items() if k != "access" and rule.__name__ in ("_", "<lambda>")]
    assert not anonymous, f"name the rules of {name} after it and their kind, as in _{name}_check"
