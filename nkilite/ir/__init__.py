"""The intermediate representation: programs, signatures, views, their text form and their verifier."""

from typing import TYPE_CHECKING

from nkilite.ir.printer import print_program
from nkilite.ir.program import Program
from nkilite.ir.verifier import verify
from nkilite.later import later

if TYPE_CHECKING:
    from nkilite.ir.parser import parse_program
else:
    _parser = later("nkilite.ir.parser")  # which launches do not need

    def __getattr__(name: str) -> object:
        if name == "parse_program":
            return _parser.parse_program
        raise AttributeError(name)

__all__ = ["Program", "parse_program", "print_program", "verify"]

Program.__str__ = print_program  # type: ignore[method-assign,assignment]
