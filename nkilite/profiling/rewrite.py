"""What passes over the timed program share: a copy of its own, and signatures with one argument changed."""

from __future__ import annotations

from array import array
from copy import copy

from nkilite.errors import NkiError
from nkilite.ir.program import Program, Signature
from nkilite.passes.splice import assemble


def copied(program: Program) -> Program:
    """A program of its own that shares buffers, signatures and constants."""
    program.starts()  # which the copy takes over
    own = copy(program)
    own.reword(array("q", program.code))
    own.names, own.addresses = dict(program.names), dict(program.addresses)
    own.dependencies = list(program.dependencies)
    return own


def changed(program: Program, signature: Signature, name: str, value: object) -> Signature | None:
    """The signature with another argument; None where the hardware does not allow it."""
    arguments = {**signature.arguments, name: value}
    try:
        signature.definition.rule("check")(Signature(-1, signature.definition, arguments, program.target, ()))
    except NkiError:
        return None
    return program.signature(signature.definition, arguments)


def without(program: Program, starts: list[int], dropped: set[int]) -> Program:
    """The program, changed in place, without some instructions; `starts` are the word positions of all."""
    code = array("q")
    moved: dict[int, int] = {}
    ends = [*starts[1:], len(program.code)]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if i not in dropped:
            moved[i] = len(moved)
            code.extend(program.code[start:end])
    program.code, program.count = code, len(moved)
    program.names = {moved[i]: name for i, name in program.names.items() if i in moved}
    program.dependencies = [(moved[a], moved[b]) for a, b in program.dependencies if a in moved and b in moved]
    return program


def words(program: Program, name: str, where: int, **given: object) -> list[int]:
    """As `assemble`; which engine copies is left to the compiler."""
    found = assemble(program, name, where, **given)
    if name == "tensor_copy":
        program.open_engines.add(found[0])
    return found
