"""The passes over a traced Program, in order; what they leave is still for the chip, and for no CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from nkilite import knobs
from nkilite.ir.program import Program
from nkilite.ir.verifier import verify
from nkilite.passes.allocate import Allocate
from nkilite.passes.bring_partitions import BringPartitions
from nkilite.passes.check_destinations import CheckDestinations
from nkilite.passes.check_partitions import CheckPartitions
from nkilite.passes.fill_unwritten import FillUnwritten
from nkilite.passes.follow_writes import FollowWrites
from nkilite.passes.round_stochastically import RoundStochastically
from nkilite.passes.separate_tiles import SeparateTiles
from nkilite.passes.watch_numbers import WatchNumbers

Subject = TypeVar("Subject")


class Pass(Protocol[Subject]):
    """A valid program or schedule in, a valid one out; a pass may change the one that it is given."""

    def run(self, subject: Subject, /) -> Subject: ...


PIPELINE: tuple[type[Pass[Program]], ...] = (
    CheckDestinations,
    BringPartitions,
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
    return run_passes(PIPELINE, program, verify, observe)


def run_passes(
    kinds: Iterable[type[Pass[Subject]]],
    subject: Subject,
    verify: Callable[[Subject, str], None],
    observe: Callable[[str, Subject], None] | None,
) -> Subject:
    """Run passes one after another; `verify(subject, pass name)` in between if NKILITE_VERIFY=1."""
    check = knobs.verify_passes()
    for kind in kinds:
        subject = kind().run(subject)
        if check:
            verify(subject, kind.__name__)
        if observe is not None:
            observe(kind.__name__, subject)
    return subject
