"""Choose the engine of copies that left it open, and of what an activation does as well.

nkilite runs them all on the Vector Engine; the vendor's compiler selects the best engine "based on engine workload"
(nisa.tensor_copy). Here each copy, in program order, goes to the Scalar Engine if that would be done with it before
the Vector Engine could begin, if both worked through their instructions without waiting. On a chip whose Scalar
Engine has no tensor_copy, that of a compiler-managed program copies from PSUM all the same: the vendor's compiler
makes it an activation by the identity (profiles of trn1 kernels). So it does with products and sums of a tile and a
number: profiles of NKIBench's adamw and silu have the Scalar Engine busy for as long as they take there, beside the
activations.
"""

from __future__ import annotations

from array import array

import numpy as np

from nkilite.compiled import Floats, Ints, compiled
from nkilite.ir.columns import Columns
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.machine.engine import Engine
from nkilite.profiling.rewrite import changed, copied

__all__ = ["balanced"]

_OPEN = "tensor_copy"
_AFFINE = {("multiply",), ("add",), ("subtract",), ("multiply", "add"), ("multiply", "subtract")}
_NEVER = 1e300  # nanoseconds of a copy that does not run on the Vector Engine


def balanced(program: Program) -> Program:
    """The program with its open copies placed; the one given if there are none."""
    choices: dict[int, tuple[float, Signature, float]] = {}
    for number in program.open_engines:
        signature = program.signatures[number]
        if program.managed and _is_affine(signature):
            moved = program.signature(signature.definition, {**signature.arguments, "engine": Engine.scalar})
            choices[number] = (_busy_ns(signature), moved, _busy_ns(moved))
        elif signature.name == _OPEN and signature.arguments["engine"] is Engine.vector:
            other = changed(program, signature, "engine", Engine.scalar)
            if other is not None:
                choices[number] = (_busy_ns(signature), other, _busy_ns(other))
            elif program.managed and signature.operand("src").type.region is MemoryRegion.psum:
                other = program.signature(signature.definition, {**signature.arguments, "engine": Engine.scalar})
                choices[number] = (_NEVER, other, _busy_ns(other))
    if not choices:
        return program
    columns = Columns.of(program)
    busy = np.zeros((len(program.signatures), 2))  # by signature, of the Vector and of the Scalar Engine
    scalar = np.full(len(program.signatures), -1)
    for signature, _, _ in columns.uses():
        engine = signature.definition.rule("cost")(signature).engine
        if signature.id in choices:
            here, moved, there = choices[signature.id]
            scalar[signature.id], busy[signature.id] = moved.id, (here, there)
        elif engine in (Engine.vector, Engine.scalar):
            busy[signature.id, int(engine is Engine.scalar)] = _busy_ns(signature)
    chosen = columns.ids.copy()
    _choose.run(len(chosen), busy.reshape(-1), scalar, chosen, len(chosen))
    program = copied(program)
    code = columns.code.copy()
    code[columns.starts] = chosen
    program.reword(array("q", code.tobytes()))
    return program


def _is_affine(signature: Signature) -> bool:
    """Whether it is an instruction of the Vector Engine that an activation with a scale or a bias can do as well."""
    if signature.name != "tensor_scalar" or signature.arguments["engine"] is not Engine.vector:
        return False
    steps = [signature.arguments[name] for name in ("op0", "op1")]
    return tuple(op.name for op in steps if op is not None) in _AFFINE


@compiled
def _choose(busy: Floats, other: Ints, chosen: Ints, count: int) -> None:
    """Choose the signatures of `count` instructions, in order.

    Args:
        busy: by signature, (Vector, Scalar) nanoseconds: of a choice, what it takes of the one or of the other.
        other: by signature, the one on the Scalar Engine if there is a choice, else -1.
        chosen: the signature of every instruction.
    """
    vector, scalar = 0.0, 0.0
    for i in range(count):
        here, there = busy[2 * chosen[i]], busy[2 * chosen[i] + 1]
        if other[chosen[i]] < 0:
            vector += here
            scalar += there
        elif scalar + there < vector or here == _NEVER:
            chosen[i] = other[chosen[i]]
            scalar += there
        else:
            vector += here


def _busy_ns(signature: Signature) -> float:
    return signature.definition.rule("cost")(signature).busy_ns(signature.target)
