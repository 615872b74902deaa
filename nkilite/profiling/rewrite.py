"""What passes over the timed program share: a copy of its own, and signatures with one argument changed."""

from __future__ import annotations

from array import array
from copy import copy
from typing import Any

from nkilite.errors import NkiError
from nkilite.ir.program import Program, Signature


def copied(program: Program) -> Program:
    """A program of its own that shares buffers, signatures and constants."""
    own = copy(program)
    own.code, own.names, own.addresses = array("q", program.code), dict(program.names), dict(program.addresses)
    own.dependencies = list(program.dependencies)
    return own


def changed(program: Program, signature: Signature, name: str, value: Any) -> Signature | None:
    """The signature with another argument; None where the hardware does not allow it."""
    arguments = {**signature.arguments, name: value}
    try:
        signature.definition.rule("check")(Signature(-1, signature.definition, arguments, program.target, ()))
    except NkiError:
        return None
    return program.signature(signature.definition, arguments)
