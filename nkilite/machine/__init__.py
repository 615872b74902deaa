"""Data about the chip: targets, instruction costs and the memory planner. Knows nothing of the IR."""

from nkilite.machine.engine import Cost, Engine, Operand
from nkilite.machine.memory import Overflow, Plan, Request, Reservation, peak, plan
from nkilite.machine.target import TARGETS, Target, first_with, get_target

__all__ = [
    "TARGETS",
    "Cost",
    "Engine",
    "Operand",
    "Overflow",
    "Plan",
    "Request",
    "Reservation",
    "Target",
    "first_with",
    "get_target",
    "peak",
    "plan",
]
