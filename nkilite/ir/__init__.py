"""The intermediate representation: programs, signatures, views, their text form and their verifier."""

from nkilite.ir.parser import parse_program
from nkilite.ir.printer import print_program
from nkilite.ir.program import Program
from nkilite.ir.verifier import verify

__all__ = ["Program", "parse_program", "print_program", "verify"]

Program.__str__ = print_program  # type: ignore[method-assign,assignment]
