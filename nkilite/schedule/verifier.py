"""Checks that a schedule is right for its program; run between passes and on parsed text."""

from __future__ import annotations

from nkilite.ir.verifier import verify
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.verify_groups import verify_groups
from nkilite.schedule.verify_tiles import verify_tiles


def verify_schedule(schedule: Schedule, after: str = "") -> None:
    """Check the program, what is said of its tiles, and its groups.

    Args:
        after: what produced the schedule, for the message.

    Raises:
        IrError: the program is malformed, or the schedule does not do what it does.
        NkiValidationError: an instruction breaks a rule of the hardware.
    """
    verify(schedule.program, after)
    where = f" after {after}" if after else ""
    verify_tiles(schedule, where)
    verify_groups(schedule, where)
