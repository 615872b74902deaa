"""All collectives with shapes, dtypes, memories, rank lists, rings and cores drawn at random, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import random_collectives as drawing

pytestmark = pytest.mark.filterwarnings("ignore::nkilite.ir.coverage.PartlyUninitialized")
SEEDS = 4 * len(drawing.KINDS)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_against_numpy(seed: int) -> None:
    plan = drawing.drawn(seed)
    found = drawing.results(plan)
    for core in range(plan.cores):
        before = [found[rank][2][core, 0] for rank in range(plan.count)]
        for channel in range(plan.tensors):
            _require_rings(plan, [int(b[channel]) for b in before])
        for rank, (made, told, _) in enumerate(found):
            right, table = drawing.expected(plan, rank, core, before[rank])
            for i, values in enumerate(right):
                np.testing.assert_array_equal(made[core, i].view(np.uint8), np.ascontiguousarray(values).view(np.uint8))
            np.testing.assert_array_equal(told[core], table)


def _require_rings(plan: drawing.Plan, before: list[int]) -> None:
    """Going backwards from a rank comes by all of its list, and back to it."""
    for ranks in plan.lists:
        seen = [ranks[0]]
        while before[seen[-1]] not in seen:
            seen.append(before[seen[-1]])
        assert sorted(seen) == sorted(ranks)
        assert before[seen[-1]] == seen[0]


def test_what_is_drawn() -> None:
    """Every kind on every number of ranks and in each of its memories, simulated and compiled, on one and two cores."""
    plans = [drawing.drawn(seed) for seed in range(40 * len(drawing.KINDS))]
    for kind in drawing.KINDS:
        of_kind = [plan for plan in plans if plan.kind == kind]
        assert {plan.count for plan in of_kind} == set(drawing.RANKS)
        assert {(plan.simulated, plan.cores) for plan in of_kind} == {(s, c) for s in (False, True) for c in (1, 2)}
        assert len({plan.memory for plan in of_kind}) >= 2
