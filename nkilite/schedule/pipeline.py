"""From a traced Program to a Schedule: the passes over the program, then those that decide how a CPU runs it."""

from __future__ import annotations

from collections.abc import Callable

from nkilite.ir.program import Program
from nkilite.passes.pipeline import Pass, run_passes, run_pipeline
from nkilite.schedule.eliminate_dead_code import EliminateDeadCode
from nkilite.schedule.find_broadcast import FindBroadcast
from nkilite.schedule.fuse import Fuse
from nkilite.schedule.group_matmuls import GroupMatmuls
from nkilite.schedule.group_moves import GroupMoves
from nkilite.schedule.infer_panels import InferPanels
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.stage_overlaps import StageOverlaps
from nkilite.schedule.verifier import verify_schedule

PIPELINE: tuple[type[Pass[Schedule]], ...] = (
    EliminateDeadCode,
    StageOverlaps,
    FindBroadcast,
    InferPanels,
    GroupMatmuls,
    GroupMoves,
    Fuse,
)

Observer = Callable[[str, Program | Schedule], None]


def scheduled(program: Program, observe: Observer | None = None) -> Schedule:
    """The schedule of a traced program.

    `observe(pass name, program or schedule)` is called after each pass, and NKILITE_VERIFY=1 verifies in between.
    """
    return run_passes(PIPELINE, Schedule(run_pipeline(program, observe)), verify_schedule, observe)
