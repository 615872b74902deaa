"""The registers that engines keep from one instruction to the next: a row of them for each partition."""

from __future__ import annotations

from typing import NamedTuple

from nkilite.dtypes import DType, float32, uint32
from nkilite.rounding import STATE_COLUMNS

__all__ = ["REGISTERS", "STATE_WORDS", "STREAMS", "RegisterFile"]

#: Words of the state of an XORWOW random number generator (arch-v4).
STATE_WORDS = 6
#: Generators in each lane of an engine that makes random numbers (arch-v4; isa, rand_set_state: 24 and 6 words).
STREAMS = {"vector": 4, "gpsimd": 1}


class RegisterFile(NamedTuple):
    """Registers of one kind."""

    columns: int  # in each partition
    dtype: DType


#: By name. Those that accumulate a reduction have the name of their engine.
REGISTERS = {
    "vector": RegisterFile(1, float32),
    "scalar": RegisterFile(1, float32),
    "vector_random": RegisterFile(STREAMS["vector"] * STATE_WORDS, uint32),
    "gpsimd_random": RegisterFile(STREAMS["gpsimd"] * STATE_WORDS, uint32),
    "rounding": RegisterFile(STATE_COLUMNS, uint32),
}
