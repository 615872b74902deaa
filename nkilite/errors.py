"""Every error nkilite raises: one small class per mistake.

A class states what is wrong in `template` and how to mend it in `remedy`; both are formatted with the keyword
arguments it is raised with. The user's line is found when the error is made, or passed in when the mistake is only
discovered later (by a pass, or while the kernel runs).

    NkiError
    ├── ArgumentError          what was passed to a kernel
    ├── NkiValidationError     an instruction breaks a rule of the hardware
    │   └── ViewError          ... about indexing and access patterns
    ├── TracingError           Python that cannot be traced
    ├── UnsupportedError       valid NKI that nkilite does not run yet
    ├── IrError                malformed IR text or Program
    ├── ExecutionError         only known while the kernel runs
    └── InternalError          a mistake of nkilite
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from nkilite.location import Location, here
from nkilite.plain import plain

_Error = TypeVar("_Error", bound="NkiError")


class NkiError(Exception):
    """Base of all nkilite errors. They can be copied and pickled: message, location, fields, notes and cause arrive.

    Attributes:
        location: the user's file and line.
        fields: the values the message was made of.
    """

    template: ClassVar[str] = "{message}"
    remedy: ClassVar[str] = ""

    def __init__(self, *args: object, location: Location | None = None, **fields: Any) -> None:
        if args and not fields and self.template == "{message}":
            fields = {"message": args[0]}
        self.fields = fields
        self.location = location if location is not None else here()
        super().__init__(self._message())

    def _message(self) -> str:
        lines = [_filled(self.template, self.fields)]
        if self.location.line:
            lines.append(f"  at {self.location}")
            if self.location.source:
                lines.append(f"     {self.location.source}")
        made = self.fields.get("made_at")
        if made is not None and made != self.location:
            lines.append(f"  the view was made at {made}")
        fix = self.fields.get("fix") or _filled(self.remedy, self.fields)
        if fix:
            lines.append(f"  fix: {fix}" if fix.endswith((".", "?")) else f"  fix: {fix}.")
        return plain("\n".join(lines))

    def __copy__(self: _Error) -> _Error:
        return _restored(type(self), self.args, self._state())

    def __deepcopy__(self: _Error, memo: object) -> _Error:
        return self.__copy__()  # what it is made of does not change

    def __reduce__(self) -> tuple[object, ...]:
        state = self._state()
        state["fields"] = {name: _portable(value, describe(value)) for name, value in self.fields.items()}
        return _restored, (type(self), self.args, {name: _portable(value) for name, value in state.items()})

    def _state(self) -> dict[str, object]:
        return {**vars(self), "__cause__": self.__cause__, "__suppress_context__": self.__suppress_context__}


def _filled(template: str, fields: Mapping[str, object]) -> str:
    """A template with its values, also those that cannot be shown as it says."""
    try:
        return template.format(**fields)
    except Exception:
        return template.format(**{name: _shown(value) for name, value in fields.items()})


def _shown(value: object) -> object:
    """A value, or what it is if it has no text."""
    try:
        str(value)
    except Exception:
        return describe(value)
    return value


def _restored(kind: type[_Error], args: tuple[object, ...], state: Mapping[str, object]) -> _Error:
    """An error with the message it once had, which its fields may no longer be able to give."""
    error = kind.__new__(kind)
    super(NkiError, error).__init__(*args)
    for name, value in state.items():
        setattr(error, name, value)
    return error


def _portable(value: object, otherwise: object = None) -> object:
    """A value as another process will have it, or something else in its place if it cannot be taken there."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return otherwise
    return value


def describe(value: Any) -> str:
    """A value of the wrong kind in an error message: arrays and tensors by shape, others by a short repr."""
    kind = type(value).__name__
    if value is None:
        return "None"
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):
        if hasattr(value, "tile_shape"):
            return repr(value)
        if kind == "NkiTensor":
            return f"a tensor {value.dtype} {tuple(value.shape)} in {str(value.buffer).upper()}"
        return f"an array {value.dtype} {tuple(value.shape)} ({kind})"
    try:
        text = repr(value)
    except Exception:  # of the user's own class, or a number of too many digits
        text = hex(value) if isinstance(value, int) else "whose repr fails"
    return f"{kind} {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


_SHOWN = 80  # characters of a repr


# --- families -----------------------------------------------------------------------------------------------------


class ArgumentError(NkiError):
    """A kernel was called with something it cannot take."""


class NkiValidationError(NkiError):
    """An instruction breaks a rule of the hardware."""


class ViewError(NkiValidationError):
    """An index, slice, reshape or access pattern that the tensor does not have."""


class TracingError(NkiError):
    """Python that has no meaning while a kernel is traced."""


class UnsupportedError(NkiError):
    """Valid NKI that nkilite does not run yet."""

    template = "{feature} is not supported by nkilite yet."
    remedy = "see docs/compatibility.md for what runs."


class VendorModule(UnsupportedError, ImportError):
    template = "{module} is part of the vendor's compiler, not of the NKI language, and nkilite does not have it."
    remedy = "call the kernel directly; python -m nkilite compile shows every stage of its compilation."


class IrError(NkiError):
    """A Program or its text is malformed."""


class ExecutionError(NkiError):
    """A mistake that only shows while the kernel runs."""


# --- kernel arguments ---------------------------------------------------------------------------------------------


class UnsupportedArgument(ArgumentError, TypeError):
    template = "argument {name!r} of kernel {kernel!r} is a {type}, which a kernel cannot take."
    remedy = (
        "pass NumPy, torch (CPU) or JAX arrays for tensors, and numbers, strings, None, enums, functions, "
        "dataclasses, tuples, lists or dicts for compile-time values."
    )


class NotAnArray(ArgumentError, TypeError):
    template = "argument {name!r} of kernel {kernel!r} is {found}, and the kernel uses it as a tensor{use}."
    remedy = "pass an array, for example numpy.array(..., numpy.float32): only arrays become tensors."


class InvalidCall(ArgumentError, TypeError):
    template = "{function}() {problem}."
    remedy = "its signature is {function}{signature}."


class NumberTooLarge(ArgumentError, OverflowError):
    template = "a number is beyond all that sizes, indices and strides can be ({problem})."
    remedy = "give numbers that fit 64 bits."


class InstancesDiffer(ArgumentError, ValueError):
    template = "the instances of a launch grid do not all call nl.all_reduce in the same way: {problem}."
    remedy = "call it in every instance, as often in each, with the same program_axes."


class NestedConfig(ArgumentError, ValueError):
    template = "kernel {kernel!r}, which another kernel calls, has a compile_config of its own: {wrong}."
    remedy = "give both the same one, or the outer one SpecializationConfig(allow_nested_config_override=True)."


class InvalidSchedule(ArgumentError, ValueError):
    template = "the schedule of kernel {kernel!r} does not fit it: {problem}."
    remedy = "an entry is (name, name or list of names it waits for), of instructions called with name=."


class UnsupportedArrayDtype(ArgumentError, TypeError):
    template = "array argument {name!r} has dtype {dtype}, which NeuronCores do not have."
    remedy = "convert it first, for example to {suggestion}."


class NonContiguousArgument(ArgumentError):
    template = "argument {name!r} of shape {shape} is {problem}, but the kernel writes it in place."
    remedy = "pass a C-contiguous, writable array (for example numpy.ascontiguousarray(x))."


class OverlappingArguments(ArgumentError, ValueError):
    template = "arguments {written!r} and {other!r} share some of their memory, and the kernel writes {written!r}."
    remedy = "pass arrays that are apart, or one and the same array for both."


class InvalidDynamicShape(ArgumentError, ValueError):
    template = "argument {name!r} of kernel {kernel!r} {problem}."
    remedy = "{fix}"


class InvalidReturn(ArgumentError, TypeError):
    template = "kernel {kernel!r} returns {what}; only tensors in nl.shared_hbm leave the chip."
    remedy = "copy it with nisa.dma_copy into nl.ndarray(..., buffer=nl.shared_hbm) and return that."


class KernelNotPickled(ArgumentError, TypeError):
    template = "kernel {kernel!r} cannot be pickled: module {module!r} has none of that name."
    remedy = "define it at the top level of a module, under its own name, where another process can find it."


class PackageShadowed(ArgumentError, ImportError):
    template = "a package {package!r} is installed at {path}; nkilite will not take its place unasked."
    remedy = "pass force=True (--force on the command line, --nki-force to pytest) to use nkilite instead of it."


class InvalidOutput(ArgumentError, ValueError):
    template = "{name} of kernel {kernel!r} {problem}; it must be {expected}."
    remedy = "give out= arrays like those the kernel returns, for example what an earlier call returned."


class CompilerMissing(ArgumentError, OSError):
    template = "a C++ operator needs a C++ compiler, and {found}."
    remedy = "install g++ or clang++, or name another one in CXX."


class CompilationFailed(ArgumentError, ValueError):
    template = "{compiler} cannot compile {file}: {problem}.\n{output}"
    remedy = "correct the C++ source."


class NoSuchFunction(ArgumentError, LookupError):
    template = "{file} has no function {function!r} that can be an operator: {problem}."
    remedy = "define one function of that name, without overloads, that takes tensors, double, int64_t and bool."


class NotAnOperatorLibrary(ArgumentError, OSError):
    template = "{path} is no library of operators: {problem}."
    remedy = "build it with custom_op.load of nkilite, from the sources."


class InvalidWeight(ArgumentError, ValueError):
    template = "structured sparsity: {found}; expected {expected}."
    remedy = "pad the weight with zeros, or choose another pattern."


class InvalidSetting(ArgumentError, ValueError):
    template = "{variable}={found!r} is not {expected}."
    remedy = "unset it, or set it to such a value."


class InvalidGrid(ArgumentError, ValueError):
    template = "kernel {kernel!r} is launched on {found} cores; on {target} that is {choices}."
    remedy = "write kernel[1](...) or kernel[2](...), or set NEURON_LOGICAL_NC_CONFIG to one of them."


class NotThatManyRanks(ArgumentError, ValueError):
    template = "nkilite.ranks was asked for {found} ranks, and mpiexec has started {count} processes."
    remedy = "start as many: mpiexec -n {found} python -m nkilite run script.py."


class MpiMissing(ArgumentError, ImportError):
    template = "mpiexec has started several processes, and mpi4py, through which they communicate, is not installed."
    remedy = "pip install nkilite[mpi]."


class UnknownTarget(ArgumentError, ValueError):
    template = "target {found!r} is not one of {choices}."
    remedy = "set NEURON_PLATFORM_TARGET_OVERRIDE (or --target) to one of them, or to the path of a file NAME.toml."


class InvalidTarget(ArgumentError, ValueError):
    template = "target file {file}: {problem}."
    remedy = "{hint}"


class UnknownTopology(ArgumentError, ValueError):
    template = "topology {found!r} is not one of {choices}."
    remedy = "choose one of them (nkilite topologies shows them), or write a file NAME.toml."


class InvalidTopology(ArgumentError, ValueError):
    template = "topology file {file}: {problem}."
    remedy = "nkilite/machine/topologies/trn2-48xlarge.toml describes every field."


class NoTopology(ArgumentError, LookupError):
    template = "the collectives of the kernel cannot be timed: no topology of {device} comes with nkilite."
    remedy = "pass one: topology=, a name or a file NAME.toml; nkilite topologies shows what there is."


class TooManyRanks(ArgumentError, ValueError):
    template = "{ranks} ranks of {cores} core(s) on {topology}, which has chips for {room}."
    remedy = "pass a larger topology: {larger}."


# --- hardware rules -----------------------------------------------------------------------------------------------


class PartitionLimitExceeded(NkiValidationError):
    template = "{what} has {found} partitions; the limit is {limit}."
    remedy = "dimension 0 of an on-chip tile is the partition dimension: split it into tiles of at most {limit} rows."


class PartitionStartMisplaced(NkiValidationError):
    template = (
        "{instruction}: {operand} covers partitions {first} to {last} ({place}); a compute engine accesses {count} "
        "partitions from {allowed} on."
    )
    remedy = "start the slice, or the address of the tile, at such a partition; nisa.dma_copy moves rows to any place."


class PartitionsNotAdjacent(NkiValidationError):
    template = (
        "{instruction}: partitions of {operand} are {step} apart ({place}); a compute engine accesses neighbouring "
        "partitions."
    )
    remedy = "gather the rows in a tile of their own with nisa.dma_copy."


class AccessPatternExceeded(NkiValidationError):
    template = (
        "{instruction}: {operand} is accessed as {pattern} ([stride, count] within a partition), which has {what}."
    )
    remedy = "split the instruction, or copy the operand to a dense tile with nisa.dma_copy first."


class PsumBankExceeded(NkiValidationError):
    template = (
        "{instruction}: {operand} takes {found} bytes per partition; one PSUM bank holds {limit} "
        "({limit_elements} float32)."
    )
    remedy = "split the free dimension into pieces of at most {limit_elements} float32 elements."


class PsumBankCrossed(NkiValidationError):
    template = (
        "{instruction}: dst covers bytes {first} to {last} of a PSUM partition (tile {tile}), across a bank boundary; "
        "on {target} a result lies within one bank of {limit} bytes."
    )
    remedy = "start the slice on a bank boundary (a multiple of {limit} bytes) or shorten it."


class FreeSizeExceeded(NkiValidationError):
    template = "{instruction}: {operand} has {found} elements in its free dimension; the limit is {limit} on {target}."
    remedy = "tile the free dimension."


class WrongMemory(NkiValidationError):
    template = "{instruction}: {operand} is in {found}; it must be in {allowed}."
    remedy = "{hint}."


class ShapeMismatch(NkiValidationError):
    template = "{instruction}: {detail}."
    remedy = "make the shapes agree (slice, reshape or broadcast the operand)."


class DtypeMismatch(NkiValidationError):
    template = "{instruction}: {detail}."
    remedy = "{hint}"


class BroadcastDestination(NkiValidationError):
    template = (
        "{instruction}: {operand} of shape {shape} repeats dimension {dim} (stride 0), so that {count} elements "
        "would be written to one place; which of them stays is undefined."
    )
    remedy = "write to a tile of the full shape, or reduce the operands to the element that should stay."


class OverlappingDestination(NkiValidationError):
    template = "{instruction}: {what}, so that one place would be written twice; what stays there is undefined."
    remedy = "write to places that are apart."


class UnsupportedDtype(NkiValidationError):
    template = "{instruction}: {operand} has dtype {found}; allowed on {target}: {allowed}."
    remedy = "use a tile of an allowed dtype; nisa.tensor_copy converts."


class UnsupportedEngine(NkiValidationError):
    template = "{instruction} cannot run on engine {found}; allowed for this call: {allowed}."
    remedy = "leave engine unset, or choose one of the allowed engines."


class UnsupportedOnTarget(NkiValidationError):
    template = "{feature} needs {needs}; the target is {target}."
    remedy = "choose another formulation, or a newer chip with NEURON_PLATFORM_TARGET_OVERRIDE."


class UnknownOperator(NkiValidationError):
    template = "{instruction}: {found!r} is not a supported {kind}; supported: {allowed}."
    remedy = "pass one of them, for example nl.{example}."


class InvalidOperand(NkiValidationError):
    """A value of the wrong kind or out of range for a parameter."""

    template = "{instruction}: {operand} is {found}; expected {expected}."
    remedy = "pass {expected}."


class UnknownKeyword(NkiValidationError, TypeError):
    template = "{function} has no parameter {keyword!r}; it has {known}."
    remedy = "{hint}"


# --- memory -------------------------------------------------------------------------------------------------------


class MemoryOverflow(NkiValidationError):
    template = (
        "{memory} overflow on {target}: {what} needs {need} bytes per partition while {live} of {capacity} are in "
        "use: {missing} too many.\nlive tiles, largest first:\n{tiles}"
    )
    remedy = "use smaller tiles, or stop using some of these tiles before allocating this one."


class HbmOverflow(NkiValidationError):
    template = "{what} takes {found} bytes; the device memory of {target} holds {limit}."
    remedy = "pass the data in pieces, over several kernel calls."


class InvalidAddress(NkiValidationError):
    template = "{memory} address {address} of tile {tile} {problem}."
    remedy = "choose an address inside {memory} with the required alignment."


class UninitializedRead(NkiValidationError):
    template = "{instruction} reads {operand}, but {what} was never written."
    remedy = "write the tile first (nisa.memset, nisa.dma_copy, or a computation), or read only the written part."


class AccumulateUninitialized(NkiValidationError):
    template = "{instruction}(accumulate=True) adds to {operand}, which no matmul has written yet."
    remedy = "start the accumulation with accumulate=False, or leave accumulate unset."


class UnwrittenOutput(NkiValidationError):
    template = "kernel {kernel!r} returns {what}, of which nothing was ever written."
    remedy = "store the result in it (nisa.dma_copy or nl.store), or do not return it."


# --- views --------------------------------------------------------------------------------------------------------


class IndexOutOfBounds(ViewError, IndexError):
    template = "index {index} is out of bounds for dimension {dim} of size {size}{of}."
    remedy = "the size of the dimension is {size}: stay within 0 and {size}."


class TooManyIndices(ViewError, IndexError):
    template = "{found} indices for a tensor of {ndim} dimensions, shape {shape}."
    remedy = "pass at most {ndim} indices."


class InvalidDimension(ViewError, IndexError):
    template = "{operation}: there is no dimension {found} in a tensor of shape {shape}."
    remedy = "pass a dimension from 0 to {last}."


class InvalidIndex(ViewError, TypeError):
    template = "a tensor cannot be indexed with {what}."
    remedy = "{hint}"


class EmptySlice(ViewError, IndexError):
    template = "slice {index} of dimension {dim} (size {size}) selects no elements."
    remedy = "make the slice select at least one element."


class InvalidReshape(ViewError, ValueError):
    template = "cannot view shape {shape} as {new_shape}: {reason}."
    remedy = "{hint}"


class InvalidView(ViewError, ValueError):
    """A view operation used outside its rules."""

    template = "{operation}: {reason}."
    remedy = "{hint}"


class PartitionStrideMismatch(ViewError, ValueError):
    template = "{what}: partition stride {found} is not {relation}{expected}, the elements per partition."
    remedy = "use [{expected}, n] as the first pair: all partitions perform the same access."


class PatternOutOfBounds(ViewError, IndexError):
    template = "access pattern {pattern} with offset {offset} reaches {reaches}; {tensor} has {size}."
    remedy = "reduce the counts, strides or offset."


# --- tracing ------------------------------------------------------------------------------------------------------


class NotInKernel(TracingError, RuntimeError):
    template = "{what} was called outside a kernel."
    remedy = "call it inside a function decorated with @nki.jit (and call that function with arrays), in its thread."


class StaleTensor(TracingError, RuntimeError):
    template = "{instruction}: {operand} is tile {tensor} of a kernel call that has ended; it was made at {made}."
    remedy = "a tensor lives as long as its kernel call: pass data as an argument, or make the tensor in this kernel."


class KernelRecursion(TracingError, RecursionError):
    template = "kernel {kernel!r} calls itself without end: tracing reached Python's recursion limit of {limit} frames."
    remedy = "end the recursion by a compile-time condition, or write a loop."


class TensorAsNumber(TracingError, TypeError):
    template = "a tensor's elements are not known while the kernel is traced, so it cannot be used as {use}."
    remedy = "{hint}"


class RegisterInControlFlow(TracingError, TypeError):
    template = "a register's value is only known on the device, so it cannot be used as {use} in Python."
    remedy = "use nl.fori_loop or nl.while_loop for loops the device runs."


class LoopLeft(TracingError, RuntimeError):
    template = "a loop over {loop} was left before its end, but the device runs as many turns as its bounds say."
    remedy = "let every turn reach the end of the body, or write an nl.while_loop, whose body says whether it goes on."


class LoopTaken(TracingError, RuntimeError):
    template = "{loop} is what a for statement runs over, and nothing else: the device repeats its body as bounds say."
    remedy = "write 'for i in {loop}(...):' in a function that is no generator, without list, zip or enumerate."


class CollectiveNotTriggered(TracingError, RuntimeError):
    template = "{instruction} is not followed by its trigger, before the kernel ends or another one is prepared."
    remedy = "call the trigger with what it returned, exactly once."


class RegisterOperator(TracingError, TypeError):
    template = "registers have no operator {symbol}."
    remedy = (
        "compute with +, - and * of the scalar of nisa.scalar_load, or nisa.register_store the register into a (1, 1) "
        "int32 tile, compute there and nisa.register_load the result."
    )


class TensorOfLoop(TracingError, RuntimeError):
    template = "{instruction}: {operand} is tile {tensor}, made at {made} in the body of a loop that has ended."
    remedy = "make the tensor before the loop: what a body makes is a fresh one in every iteration and ends with it."


class DependencyOnLoop(TracingError, RuntimeError):
    template = "depends_on: the producer is in the body of a loop that the instruction is not in."
    remedy = "order instructions of the same loop body, or depend on one before the loop."


class CoresDiffer(TracingError, RuntimeError):
    template = "the cores {what}: core {core} has {first}, core {other} {second}.\n  core {other} at {there}"
    remedy = "let both cores do the same, in the same order, with nl.program_id(0) choosing only what they work on."


class Deadlock(TracingError, RuntimeError):
    template = (
        "core {core} waits in {instruction} for core {other}, which never comes there.\n  core {other} ends at {there}"
    )
    remedy = "let both cores come to it, or neither; code under `if nl.program_id(0) == ...` runs on one of them."


class DataRace(TracingError, RuntimeError):
    template = (
        "the cores race for {tensor}: core 0 {does} bytes [{low}, {high}) in {instruction}, and core 1 {other_does} "
        "them in {other_instruction}, with no meeting between the two{doubt}.\n  core 1 at {there}"
    )
    remedy = "put nisa.core_barrier({tensor}, (0, 1)) between them, or let the cores touch different parts."


class RaceWarning(RuntimeWarning):
    """A DataRace, where NKILITE_RACES does not make it an error."""


class TensorOperator(TracingError, TypeError):
    template = "tensors have no operator {symbol}: every computation is an instruction that writes a tile."
    remedy = "call nl.{function}(...), or the nisa instruction you want."


class UnknownName(TracingError, AttributeError):
    template = "{module} has no attribute {name!r}{why}."
    remedy = "{hint}"


# --- running ------------------------------------------------------------------------------------------------------


class InternalError(NkiError):
    """Something failed that no check foresaw: a mistake in nkilite."""

    template = "nkilite failed where it should not: {type}: {message}."
    remedy = "this is a mistake in nkilite, not in the kernel; please report it with this traceback."


class RankMissing(ExecutionError, LookupError):
    template = "a collective names rank {rank} in {group}, and the launch has {count} rank(s), from 0 on."
    remedy = "launch it on all of them: nkilite.ranks(count, main), or mpiexec -n COUNT python -m nkilite run FILE."


class RankInNoGroup(ExecutionError, LookupError):
    template = "rank {rank} comes to {instruction} of {groups}, none of which it is in."
    remedy = "list every rank that the kernel runs on, or let the others not come to it."


class RanksDiffer(ExecutionError, RuntimeError):
    template = "rank {rank} comes to {first} and rank {other} to {second}, where both are to do the same."
    remedy = "let all ranks of a group call the same collectives, in the same order and with the same shapes."


class RankLost(ExecutionError, RuntimeError):
    template = "rank {rank} waits in {instruction} for rank {lost}, which {why}."
    remedy = "let every rank of a group come to each of its collectives; if rank {lost} failed, mend that first."


class InvalidCounts(ExecutionError, ValueError):
    template = "{instruction}: the metadata of rank {rank} say {problem}."
    remedy = "let counts and displacements stay within the tensors; they count elements."


class NoTuner(ExecutionError, LookupError):
    template = "NKILITE_TUNED names {path}, and no installed package reads tuned configurations."
    remedy = "pip install nkilite (pip install -e . in a checkout), or call autotune.use({path!r}) in the program."


class NoBenchmark(ExecutionError, LookupError):
    template = "kernel {kernel!r} has not been benchmarked."
    remedy = "call it with its arguments first."


class OperatorNotLoaded(ExecutionError, LookupError):
    template = "operator {found!r} is not loaded in this process."
    remedy = "call nkilite.gpsimd.operator for it first: nothing loads native code of others by itself."


class OperatorFailed(ExecutionError, RuntimeError):
    template = "operator {operator} failed: {found}."
    remedy = "correct the operator, or what it is given."


class NotANumber(ExecutionError, ArithmeticError):
    template = "nisa.{instruction} writes {value} to {operand} ({tensor}, shape {shape}), first at {index}."
    remedy = (
        "look at what the instruction reads, with `nkilite debug` or nki.simulate, which stops here; what was loaded "
        "may have it already."
    )


class IndirectOutOfBounds(ExecutionError, IndexError):
    template = "{instruction}: an indirect index is out of bounds: {found} is not in [0, {limit})."
    remedy = "correct the index tensor, or pass oob_mode=nisa.oob_mode.skip to skip such rows."


class BeyondDimension(IndirectOutOfBounds):
    template = "{what}: position {found} of a size of {limit}."
    remedy = (
        "loop up to nl.dimension_size, and copy the last block with nisa.dma_copy(oob_mode=nisa.oob_mode.skip), which "
        "leaves out what is beyond."
    )
