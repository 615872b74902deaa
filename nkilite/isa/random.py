"""Random numbers: rng, rand2 and dropout, and the state they draw from.

The Vector and the GpSimd Engine have generators in each of their 128 lanes: partition i of a tile uses lane i. Their
state is kept for the rest of a launch, in registers that these instructions read and write, so that a launch gives the
same values each time, simulated or compiled, on any CPU and any number of threads. The stream of numbers itself is
nkilite's own (nkilite/isa/xorwow.py): the one of the hardware is not public, and differs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nkilite import dtypes
from nkilite.codegen import random as algorithms
from nkilite.codegen import xorwow as generator
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.xorwow import Source
from nkilite.errors import DtypeMismatch, InvalidOperand, ShapeMismatch
from nkilite.ir.program import Signature
from nkilite.isa import rules, xorwow
from nkilite.isa.constants import engine
from nkilite.machine import engine as costs
from nkilite.machine.engine import Cost, Engine
from nkilite.machine.registers import REGISTERS, STREAMS
from nkilite.machine.target import Target
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor

_vector_engine, _gpsimd_engine = engine.vector, engine.gpsimd
_INTEGERS = tuple(d for d in rules.UNPACKED if d.is_integer and d.kind != "b")
_WORDS = tuple(d for d in rules.UNPACKED if d.itemsize == 4)
_DRAWN = (
    dtypes.float8_e4m3, dtypes.float8_e5m2, dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.tfloat32,
    *_INTEGERS,
)  # fmt: skip


def _of_vector(arguments: dict[str, object]) -> str:
    return "vector_random"


def _of_engine(arguments: dict[str, object]) -> str | None:
    """The registers of the engine a call names; of none if it is not an engine that has any."""
    name = f"{getattr(arguments['engine'], 'name', '')}_random"
    return name if name in REGISTERS else None


@instruction(writes=("dst",), registers=_of_engine, access="p f in order: dst[p f] registers[p s]")
def rng(dst: NkiTensor, engine: Engine = _vector_engine, name: str | None = None) -> None:
    """Random bits, on the Vector or the GpSimd Engine.

    Each element takes the lowest bits of a random number of 32 bits. The stream of numbers is not that of the
    hardware.

    Args:
        dst: SBUF or PSUM tile; int8, int16, int32, uint8, uint16 or uint32.
        engine: `nisa.engine.vector`, or `gpsimd` (trn2 and later; SBUF only).

    Raises:
        WrongMemory: dst is in HBM, or in PSUM with the GpSimd Engine.
        UnsupportedDtype: dst is no integer tile.
        UnsupportedEngine, UnsupportedOnTarget: the engine makes no random numbers.

    Source: nki.isa.rng.
    """


@rng.normalize
def _rng_normalize(arguments: dict[str, object], target: Target) -> None:
    rules.choose_engine(arguments, Engine.vector)


@rng.check
def _rng_check(call: Signature) -> None:
    _require_generator(call, lambda t: t.random_engines)
    rules.require_on_chip(call)
    rules.require_no_gpsimd_psum(call)
    rules.require_dtype(call, "dst", _INTEGERS)


@rng.reference
def _rng_reference(
    call: Signature, dst: np.ndarray, registers: np.ndarray, **_: object
) -> tuple[np.ndarray, np.ndarray]:
    drawn, registers = xorwow.draw(registers, _source(call).seed, call.dst.partitions, call.dst.free_size)
    return drawn.astype(dst.dtype).reshape(dst.shape), registers


@rng.cost
def _rng_cost(call: Signature) -> Cost:
    operands = (rules.cost_operand(call.dst),)
    if call.engine is Engine.gpsimd:
        return costs.gpsimd_stream(call.target, call.dst.free_size, operands)
    return _vector_cost(call)


@rng.lower
def _rng_lower(call: Signature, kernel: MicroKernel) -> None:
    algorithms.integers(kernel, "dst", _source(call))


@instruction(writes=("dst",), registers=_of_vector, access="p f in order: dst[p f] min[p] max[p] registers[p s]")
def rand2(dst: NkiTensor, min: float | NkiTensor, max: float | NkiTensor, name: str | None = None) -> None:
    """Uniform random numbers of an interval, on the Vector Engine; trn3 only.

    A number is ``min + u * (max - min)`` in float32, where u has 24 random bits and lies in [0, 1), and at most `max`;
    it is then rounded to dst's dtype. The stream of numbers is not that of the hardware.

    Args:
        dst: SBUF or PSUM tile of P partitions; float8_e4m3, float8_e5m2, float16, bfloat16, float32, tfloat32, or an
            8-, 16- or 32-bit integer.
        min: lower end: a number, or a float32 tile of shape (P, 1).
        max: upper end, like min, and larger.

    Raises:
        UnsupportedOnTarget: the target is older than trn3.
        WrongMemory: an operand is in HBM.
        UnsupportedDtype, ShapeMismatch: see the operands.
        InvalidOperand: min is not less than max, both being numbers.

    Source: nki.isa.rand2; the trn3 architecture guide.
    """


@rand2.check
def _rand2_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_dtype(call, "dst", _DRAWN)
    for end in ("min", "max"):
        rules.require_vector(call, end, "dst", (dtypes.float32,))


@rand2.check_immediates
def _rand2_check_immediates(call: Signature, **ends: float) -> None:
    if len(ends) == 2 and not ends["min"] < ends["max"]:
        raise InvalidOperand(
            instruction="nisa.rand2", operand="min", found=ends["min"],
            expected=f"less than max, which is {ends['max']}",
        )


@rand2.reference
def _rand2_reference(
    call: Signature, dst: np.ndarray, min: object, max: object, registers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    drawn, registers = xorwow.draw(registers, _source(call).seed, call.dst.partitions, call.dst.free_size)
    low, high = (np.asarray(end).astype(np.float32).reshape(-1, 1) for end in (min, max))
    values = np.minimum(low + xorwow.uniform(drawn) * (high - low), high)
    return values.reshape(dst.shape), registers


@rand2.cost
def _rand2_cost(call: Signature) -> Cost:
    return _vector_cost(call)


@rand2.lower
def _rand2_lower(call: Signature, kernel: MicroKernel) -> None:
    algorithms.interval(kernel, "dst", "min", "max", _source(call))


@instruction(writes=("dst",), registers=_of_vector, access="p f in order: dst[p f] data[p f] prob[p] registers[p s]")
def dropout(dst: NkiTensor, data: NkiTensor, prob: float | NkiTensor, name: str | None = None) -> None:
    """Copy `data` with zeros in the place of elements chosen at random, on the Vector Engine.

    An element is dropped when a uniform number of [0, 1) is below `prob`: none for 0, all for 1. The others keep their
    bits; they are not scaled. The stream of numbers is not that of the hardware.

    Args:
        dst: SBUF or PSUM tile with the dtype, partitions and elements per partition of data; may be data itself.
        data: SBUF or PSUM tile of P partitions, of any dtype.
        prob: the probability: a number from 0 to 1, or a tile of shape (P, 1); of a float dtype, and float32 if data
            is an integer tile.

    Raises:
        WrongMemory: an operand is in HBM.
        ShapeMismatch: shapes differ, or prob is not (P, 1).
        DtypeMismatch: dst and data have different dtypes.
        UnsupportedDtype: prob has another dtype.
        InvalidOperand: prob is a number outside [0, 1].

    Source: nki.isa.dropout.
    """


@dropout.check
def _dropout_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_same_elements(call, "dst", "data")
    if call.dst.dtype != call.data.dtype:
        raise DtypeMismatch(
            instruction="nisa.dropout", detail=f"dst is {call.dst.dtype} and data {call.data.dtype}",
            hint="allocate dst with data's dtype and convert with nisa.tensor_copy.",
        )
    rules.require_vector(call, "prob", "data", rules.FLOATS if call.data.dtype.is_float else (dtypes.float32,))


@dropout.check_immediates
def _dropout_check_immediates(call: Signature, prob: float = 0) -> None:
    if not 0 <= prob <= 1:
        raise InvalidOperand(instruction="nisa.dropout", operand="prob", found=prob, expected="a number from 0 to 1")


@dropout.reference
def _dropout_reference(
    call: Signature, dst: np.ndarray, data: np.ndarray, prob: object, registers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    drawn, registers = xorwow.draw(registers, _source(call).seed, call.dst.partitions, call.dst.free_size)
    kept = xorwow.uniform(drawn) >= np.asarray(prob).astype(np.float32).reshape(-1, 1)
    return np.where(kept.reshape(dst.shape), data.reshape(dst.shape), np.zeros((), dst.dtype)), registers


@dropout.cost
def _dropout_cost(call: Signature) -> Cost:
    operands = rules.cost_operand(call.data), rules.cost_operand(call.dst)
    return costs.vector_stream(call.target, call.dst.free_size, operands)


@dropout.lower
def _dropout_lower(call: Signature, kernel: MicroKernel) -> None:
    algorithms.drop(kernel, "dst", "data", "prob", _source(call))


# --- the state ----------------------------------------------------------------------------------------------


@instruction(writes=(), registers=_of_vector, access="src_seeds[] registers[p s]")
def set_rng_seed(src_seeds: NkiTensor, name: str | None = None) -> None:
    """Seed the generators of all lanes of the Vector Engine with one number.

    The same seed gives the same numbers. A kernel that does not seed starts as with seed 0.

    Args:
        src_seeds: SBUF or PSUM tile of shape (1, 1) with a 32-bit value, of which the bits count.

    Raises:
        WrongMemory: src_seeds is in HBM.
        ShapeMismatch: src_seeds has more than one element.
        UnsupportedDtype: src_seeds is not 32 bits wide.

    Source: nki.isa.set_rng_seed.
    """


@set_rng_seed.check
def _set_rng_seed_check(call: Signature) -> None:
    rules.require_on_chip(call)
    rules.require_dtype(call, "src_seeds", _WORDS)
    if call.src_seeds.size != 1:
        raise ShapeMismatch(
            instruction="nisa.set_rng_seed", detail=f"src_seeds has shape {call.src_seeds.shape}; it must be (1, 1)"
        )


@set_rng_seed.reference
def _set_rng_seed_reference(call: Signature, src_seeds: np.ndarray, registers: np.ndarray) -> np.ndarray:
    seed = int(src_seeds.reshape(-1)[:1].copy().view(np.uint32)[0])
    return xorwow.seeded(seed, registers.shape[0], _source(call).streams).reshape(registers.shape)


@set_rng_seed.cost
def _set_rng_seed_cost(call: Signature) -> Cost:
    return costs.vector_stream(call.target, 1, (rules.cost_operand(call.src_seeds),))


@set_rng_seed.lower
def _set_rng_seed_lower(call: Signature, kernel: MicroKernel) -> None:
    generator.seed_state(kernel, "src_seeds", _source(call).streams)


@instruction(writes=(), registers=_of_engine, access="p: src_seeds[p s] registers[p s]")
def rand_set_state(src_seeds: NkiTensor, engine: Engine = _gpsimd_engine, name: str | None = None) -> None:
    """Set the state of the generators of an engine, lane by lane; trn2 and later.

    The words of a partition are those of its lane's XORWOW states, one after another: x, y, z, w, v and the counter d.
    A state of zeros is replaced by that of an engine not seeded, because it would not be random. Lanes beyond P keep
    their state.

    Args:
        src_seeds: uint32 SBUF tile of P partitions with 6 elements each for the GpSimd Engine, or 24, which are four
            states, for the Vector Engine.
        engine: `nisa.engine.gpsimd`, or `vector` (trn3).

    Raises:
        WrongMemory: src_seeds is not in SBUF.
        UnsupportedDtype: src_seeds is not uint32.
        ShapeMismatch: another number of elements.
        UnsupportedEngine, UnsupportedOnTarget: the engine's state cannot be set.

    Source: nki.isa.rand_set_state.
    """


@rand_set_state.normalize
def _rand_set_state_normalize(arguments: dict[str, object], target: Target) -> None:
    rules.choose_engine(arguments, Engine.gpsimd)


@rand_set_state.check
def _rand_set_state_check(call: Signature) -> None:
    _require_generator(call, lambda t: t.random_state_engines)
    rules.require_sbuf(call)
    _require_state(call, "src_seeds")


@rand_set_state.reference
def _rand_set_state_reference(call: Signature, src_seeds: np.ndarray, registers: np.ndarray, **_: object) -> np.ndarray:
    after = registers.copy()
    after[: src_seeds.shape[0]] = src_seeds.reshape(src_seeds.shape[0], -1)
    result: np.ndarray = after
    return result


@rand_set_state.cost
def _rand_set_state_cost(call: Signature) -> Cost:
    return _state_cost(call, "src_seeds")


@rand_set_state.lower
def _rand_set_state_lower(call: Signature, kernel: MicroKernel) -> None:
    generator.write_state(kernel, "src_seeds")


@instruction(writes=("dst",), registers=_of_engine, access="p in order: dst[p s] registers[p s]")
def rand_get_state(dst: NkiTensor, engine: Engine = _gpsimd_engine, name: str | None = None) -> None:
    """Read the state of the generators of an engine, lane by lane; trn2 and later.

    The words are laid out as nisa.rand_set_state takes them, so that setting them again repeats the numbers.

    Args:
        dst: uint32 tile of P partitions with 6 elements each for the GpSimd Engine, or 24 for the Vector Engine; in
            SBUF, or on trn3 with the Vector Engine also in PSUM.
        engine: `nisa.engine.gpsimd`, or `vector` (trn3).

    Raises:
        WrongMemory: see dst.
        UnsupportedDtype: dst is not uint32.
        ShapeMismatch: another number of elements.
        UnsupportedEngine, UnsupportedOnTarget: the engine's state cannot be read.

    Source: nki.isa.rand_get_state.
    """


@rand_get_state.normalize
def _rand_get_state_normalize(arguments: dict[str, object], target: Target) -> None:
    rules.choose_engine(arguments, Engine.gpsimd)


@rand_get_state.check
def _rand_get_state_check(call: Signature) -> None:
    _require_generator(call, lambda t: t.random_state_engines)
    rules.require_on_chip(call)
    rules.require_no_gpsimd_psum(call)
    _require_state(call, "dst")


@rand_get_state.reference
def _rand_get_state_reference(
    call: Signature, dst: np.ndarray, registers: np.ndarray, **_: object
) -> tuple[np.ndarray, np.ndarray]:
    return xorwow.states(registers, _source(call).seed)[: dst.shape[0]].reshape(dst.shape), registers


@rand_get_state.cost
def _rand_get_state_cost(call: Signature) -> Cost:
    return _state_cost(call, "dst")


@rand_get_state.lower
def _rand_get_state_lower(call: Signature, kernel: MicroKernel) -> None:
    generator.read_state(kernel, "dst", _source(call))


# --- shared -------------------------------------------------------------------------------------------------


def _engine(call: Signature) -> str:
    return call.engine.name if "engine" in call.arguments else Engine.vector.name


def _source(call: Signature) -> Source:
    name = _engine(call)
    return Source(STREAMS[name], xorwow.DEFAULT_SEEDS[name])


def _require_generator(call: Signature, engines: Callable[[Target], frozenset[str]]) -> None:
    """Check that the call's engine is one of those that a target has for this."""
    rules.require_engine(call, Engine.vector, Engine.gpsimd)
    name = f"{rules.instruction_name(call)} on the {'GpSimd' if call.engine is Engine.gpsimd else 'Vector'} Engine"
    rules.require_capability(call, lambda t: call.engine.name in engines(t), name)


def _require_state(call: Signature, operand: str) -> None:
    rules.require_dtype(call, operand, (dtypes.uint32,))
    rules.require_dimensions(call, operand, 2, 2)
    kind, words = call.arguments[operand], call.registers.free_size
    if kind.free_size != words:
        raise ShapeMismatch(
            instruction=rules.instruction_name(call),
            detail=f"{operand} has shape {kind.shape}; the state of a lane of the {_engine(call)} engine has {words} "
            "elements",
        )


def _vector_cost(call: Signature) -> Cost:
    """Four numbers per lane and cycle where the engine has four XORWOW generators, else one."""
    operands = (rules.cost_operand(call.dst),)
    return costs.vector_stream(call.target, call.dst.free_size, operands, cycles_per_element=call.target.random_cycles)


def _state_cost(call: Signature, operand: str) -> Cost:
    kind = call.arguments[operand]
    stream = costs.gpsimd_stream if call.engine is Engine.gpsimd else costs.vector_stream
    return stream(call.target, kind.free_size, (rules.cost_operand(kind),))
