"""The intermediate representation: programs, signatures, views, their text form and their verifier."""

from typing import TYPE_CHECKING, Any

from nkilite.ir.printer import print_program
from nkilite.ir.program import Program
from nkilite.ir.verifier import verify

if TYPE_CHECKING:
    from nkilite.ir.parser import parse_program
else:

    def __getattr__(name: str) -> Any:
        if name == "parse_program":  # which launches do not need
            from nkilite.ir import parser

            return parser.parse_program
        raise AttributeError(name)

__all__ = ["Program", "parse_program", "print_program", "verify"]

Program.__str__ = print_program  # type: ignore[method-assign,assignment]
