"""The passes over a traced Program, in order; what they leave is still for the chip, and for no CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nkilite import knobs
from nkilite.ir.program import Program
from nkilite.ir.verifier import verify
from nkilite.passes.allocate import Allocate
from nkilite.passes.check_destinations import CheckDestinations
from nkilite.passes.check_partitions import CheckPartitions
from nkilite.passes.fill_unwritten import FillUnwritten
from nkilite.passes.follow_writes import FollowWrites
from nkilite.passes.round_stochastically import RoundStochastically
from nkilite.passes.separate_tiles import SeparateTiles
from nkilite.passes.watch_numbers import WatchNumbers


class Pass(Protocol):
    """Valid IR in, valid IR out; a pass may change the program it is given."""

    def run(self, program: Program) -> Program: ...


PIPELINE: tuple[type[Pass], ...] = (
    CheckDestinations,
    CheckPartitions,
    FollowWrites,
    FillUnwritten,
    Allocate,
    SeparateTiles,
    RoundStochastically,
    WatchNumbers,
)

Observer = Callable[[str, Program], None]


def run_pipeline(program: Program, observe: Observer | None = None) -> Program:
    """Run every pass; `observe(pass name, program)` is called after each, and NKILITE_VERIFY=1 verifies in between."""
    check = knobs.verify_passes()
    for kind in PIPELINE:
        program = kind().run(program)
        if check:
            verify(program, after=kind.__name__)
        if observe is not None:
            observe(kind.__name__, program)
    return program
