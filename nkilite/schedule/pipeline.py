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

NEEDED: tuple[type[Pass[Schedule]], ...] = (EliminateDeadCode, StageOverlaps)
UNGROUPED: tuple[type[Pass[Schedule]], ...] = (FindBroadcast, InferPanels, GroupMatmuls)  # where there is no group yet
FASTER = (*UNGROUPED, GroupMoves, Fuse)
PIPELINE = NEEDED + FASTER

Observer = Callable[[str, Program | Schedule], None]


def prepared(program: Program, observe: Observer | None = None) -> Schedule:
    """A traced program that a CPU can run, one instruction after another."""
    return run_passes(NEEDED, Schedule(run_pipeline(program, observe)), verify_schedule, observe)


def improved(schedule: Schedule, observe: Observer | None = None) -> Schedule:
    """How a CPU runs it faster."""
    return run_passes(FASTER, schedule, verify_schedule, observe)


def scheduled(program: Program, observe: Observer | None = None) -> Schedule:
    """The schedule of a traced program.

    `observe(pass name, program or schedule)` is called after each pass, and NKILITE_VERIFY=1 verifies in between.
    """
    return improved(prepared(program, observe), observe)
