"""Choose the engine of copies that left it open.

nkilite runs them all on the Vector Engine; the vendor's compiler selects the best engine "based on engine workload"
(nisa.tensor_copy). Here each copy, in program order, goes to the Scalar Engine if that would be done with it before the
Vector Engine could begin, if both worked through their instructions without waiting. On a chip whose Scalar Engine has
no tensor_copy, that of a compiler-managed program copies from PSUM all the same: the vendor's compiler makes it an
activation by the identity (profiles of trn1 kernels).
"""

from __future__ import annotations

import math

from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.machine.engine import Engine
from nkilite.profiling.rewrite import changed, copied

__all__ = ["balanced"]

_OPEN = "tensor_copy"


def balanced(program: Program) -> Program:
    """The program with its open copies placed; the one given if there are none."""
    choices: dict[int, tuple[float, Signature, float]] = {}
    for number in program.open_engines:
        signature = program.signatures[number]
        if signature.name == _OPEN and signature.arguments["engine"] is Engine.vector:
            other = changed(program, signature, "engine", Engine.scalar)
            if other is not None:
                choices[number] = (_busy_ns(signature), other, _busy_ns(other))
            elif program.managed and signature.operand("src").type.region is MemoryRegion.psum:
                other = program.signature(signature.definition, {**signature.arguments, "engine": Engine.scalar})
                choices[number] = (math.inf, other, _busy_ns(other))
    if not choices:
        return program
    program = copied(program)
    vector = scalar = 0.0
    load: dict[int, tuple[float, float]] = {}  # by signature: what a fixed instruction adds to Vector and Scalar
    for start in program.starts():
        number = program.code[start]
        choice = choices.get(number)
        if choice is not None:
            here, other, there = choice
            if scalar + there < vector or here == math.inf:
                program.code[start] = other.id
                scalar += there
            else:
                vector += here
            continue
        if number not in load:
            signature = program.signatures[number]
            cost = signature.definition.rule("cost")(signature)
            busy = _busy_ns(signature)
            load[number] = (busy * (cost.engine is Engine.vector), busy * (cost.engine is Engine.scalar))
        vector, scalar = vector + load[number][0], scalar + load[number][1]
    return program


def _busy_ns(signature: Signature) -> float:
    return signature.definition.rule("cost")(signature).busy_ns(signature.target)
