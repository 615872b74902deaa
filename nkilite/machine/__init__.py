"""Data about the chip: targets, instruction costs and the memory planner. Knows nothing of the IR."""

from nkilite.machine.engine import Cost, Engine, Operand
from nkilite.machine.memory import Overflow, Plan, Request, Reservation, peak, plan
from nkilite.machine.target import TARGETS, Target, get_target, legal_start_partitions

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
    "get_target",
    "legal_start_partitions",
    "peak",
    "plan",
]
