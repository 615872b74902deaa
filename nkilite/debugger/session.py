"""A session: where it stops, and the commands at a stop."""

from __future__ import annotations

import cmd
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple, NoReturn

import numpy as np

from nkilite.debugger import show
from nkilite.errors import NkiError
from nkilite.ir.definition import REGISTRY
from nkilite.plain import plain
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor
from nkilite.trace.watching import Stop


class Quit(BaseException):
    """The user ends the session, and with it the launch."""


class Breakpoint(NamedTuple):
    """Where to stop.

    Attributes:
        text: as the user gave it.
        at: whether an instruction that has run is there.
    """

    text: str
    at: Callable[[Stop], bool]


def breakpoint_of(text: str) -> Breakpoint | None:
    """The breakpoint of a line, a file and a line, an instruction, a user's name of one, or `nan` or `inf`."""
    file, _, line = text.rpartition(":")
    if line.isdecimal():
        wanted = int(line)
        return Breakpoint(text, lambda stop: stop.location.line == wanted and _is_file(stop.location.file, file))
    if text in ("nan", "inf"):
        special = np.isnan if text == "nan" else np.isinf
        return Breakpoint(text, lambda stop: _writes(stop, special))
    if text in REGISTRY:
        return Breakpoint(text, lambda stop: stop.instruction == text)
    return Breakpoint(text, lambda stop: stop.name == text) if text else None


def _is_file(path: str, end: str) -> bool:
    return not end or os.path.basename(path) == end or path.endswith(os.sep + end) or path == end


def _writes(stop: Stop, special: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether a tile of floats that the instruction wrote has such elements."""
    tensors = [stop.operands[name] for name in stop.written]
    return any(bool(special(t.numpy().astype(np.float32)).any()) for t in tensors if t.dtype.is_float)


class Debugger(cmd.Cmd):
    """Told of every instruction after it has run, it stops where asked and takes commands: from a terminal, or a list.

    It begins with the first instruction. On several cores, each stops by itself.
    """

    intro = None
    prompt = "(nki) "

    def __init__(self, commands: Iterable[str] | None = None, say: Callable[[str], None] = print) -> None:
        """
        Args:
            commands: instead of the terminal's; after the last one the kernel runs to its end.
            say: what shows text.
        """
        super().__init__()
        self._commands = None if commands is None else iter(commands)
        self._say = say
        self._breakpoints: dict[int, Breakpoint] = {}
        self._made = 0
        self._steps = 1  # instructions until the next stop; 0: at breakpoints alone
        self._leaving: dict[int, tuple[object, ...]] = {}  # the line to be left, by core
        self._core: int | None = None
        self._stop: Stop
        self._ended = False

    # --- stopping -------------------------------------------------------------------------------------------------

    def __call__(self, stop: Stop) -> None:
        """An instruction has run.

        Raises:
            Quit: the user ends the session.
        """
        if self._ended or (self._core is not None and stop.core != self._core):
            return
        hit = [number for number, found in self._breakpoints.items() if found.at(stop)]
        if not hit and not self._steps_to(stop):
            return
        self._steps, self._stop = 0, stop
        self._leaving.clear()
        reason = "".join(f", breakpoint {number}" for number in hit)
        self._out(f"core {stop.core}, instruction {stop.number}{reason}")
        self.do_where("")
        self._take_commands()

    def _steps_to(self, stop: Stop) -> bool:
        if self._leaving:
            line = self._leaving.get(stop.core)
            return line is not None and line != _line(stop)
        if self._steps:
            self._steps -= 1
            return self._steps == 0
        return False

    def _take_commands(self) -> None:
        if self._commands is None:
            self.cmdloop()
            return
        for line in self._commands:
            self._out(f"{self.prompt}{line}")
            if self.onecmd(line):
                return
        self._ended = True

    def _out(self, text: str) -> None:
        self._say(plain(text))

    # --- going on -------------------------------------------------------------------------------------------------

    def do_step(self, argument: str) -> bool:
        """step [N]: run one instruction, or N"""
        self._steps = int(argument) if argument.isdecimal() and int(argument) else 1
        return True

    def do_next(self, argument: str) -> bool:
        """next: run to another line of this core"""
        self._leaving[self._stop.core] = _line(self._stop)
        return True

    def do_continue(self, argument: str) -> bool:
        """continue: run to a breakpoint, or to the end"""
        return True

    def do_quit(self, argument: str) -> NoReturn:
        """quit: end the launch"""
        raise Quit

    def emptyline(self) -> bool:
        return False

    do_EOF = do_quit
    do_s, do_n, do_c, do_q = do_step, do_next, do_continue, do_quit

    # --- where to stop --------------------------------------------------------------------------------------------

    def do_break(self, argument: str) -> None:
        """break [LINE | FILE:LINE | INSTRUCTION | NAME | nan | inf]: stop there; without argument, list breakpoints"""
        found = breakpoint_of(argument)
        if found is not None:
            self._made += 1
            self._breakpoints[self._made] = found
        for number, one in self._breakpoints.items():
            self._out(f"breakpoint {number}: {one.text}")

    def do_delete(self, argument: str) -> None:
        """delete N: forget a breakpoint"""
        if not argument.isdecimal() or self._breakpoints.pop(int(argument), None) is None:
            self._out(f"there is no breakpoint {argument}")

    def do_core(self, argument: str) -> None:
        """core [N | all]: stop on one core alone, or on all"""
        if argument and argument != "all" and not argument.isdecimal():
            self._out(f"{argument} is no core")
        elif argument:
            self._core = None if argument == "all" else int(argument)
        self._out(f"stops on {'all cores' if self._core is None else f'core {self._core}'}")

    do_b = do_break

    # --- looking --------------------------------------------------------------------------------------------------

    def do_where(self, argument: str) -> None:
        """where: the instruction that has just run, its line, and what it wrote"""
        stop = self._stop
        named = f" {stop.name!r}" if stop.name else ""
        self._out(f"{stop.instruction}{named} at {stop.location}\n    {stop.location.source}")
        for name in stop.written:
            self._out(f"  {name} = {_described(stop.operands[name])}")

    def do_operands(self, argument: str) -> None:
        """operands: tensors and other arguments of the instruction"""
        for name, tensor in self._stop.operands.items():
            self._out(f"  {name}{' (written)' if name in self._stop.written else ''} = {_described(tensor)}")
        for name, value in self._stop.numbers.items():
            self._out(f"  {name} = {value}")

    def do_tiles(self, argument: str) -> None:
        """tiles: variables of the function that hold tensors"""
        for name, value in self._variables().items():
            tensor = _tensor(value)
            if tensor is not None:
                self._out(f"  {name} = {_described(tensor)}")

    def do_print(self, argument: str) -> None:
        """print EXPRESSION: the values of a tensor, or of anything else: variables of the function, or operands"""
        self._look(argument, show.values)

    def do_stats(self, argument: str) -> None:
        """stats EXPRESSION: smallest, largest and mean of a tensor, and how many NaN and infinities"""
        self._look(argument, show.statistics)

    def do_map(self, argument: str) -> None:
        """map EXPRESSION: where a tensor has NaN and infinities"""
        self._look(argument, show.nan_map)

    do_w, do_o, do_p = do_where, do_operands, do_print

    def default(self, line: str) -> None:
        self._out(f"no command {line.split()[0]!r}; help lists them")

    def do_help(self, argument: str) -> None:
        """help: the commands"""
        methods = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("do_")]
        for text in dict.fromkeys(method.__doc__ or "" for method in methods):
            self._out(f"  {text}")

    def _variables(self) -> dict[str, object]:
        frame = self._stop.frame
        return {} if frame is None else dict(frame.f_locals)

    def _look(self, expression: str, text: Callable[[np.ndarray], str]) -> None:
        try:
            with active.suspended():  # to look is to change nothing
                self._out(self._shown(expression, text))
        except Exception as error:
            self._out(f"{type(error).__name__}: {error}")

    def _shown(self, expression: str, text: Callable[[np.ndarray], str]) -> str:
        frame = self._stop.frame
        outer = {} if frame is None else frame.f_globals
        value = eval(expression, outer, {**self._stop.operands, **self._variables()})
        tensor = _tensor(value)
        return repr(value) if tensor is None else text(tensor.numpy())


def _line(stop: Stop) -> tuple[object, ...]:
    return stop.location.file, stop.location.line


def _tensor(value: object) -> NkiTensor | None:
    """The tensor that a variable is or stands for: a tile of Beta 1, or a register."""
    for found in (value, getattr(value, "nki", None), getattr(value, "register_tensor", None)):
        if isinstance(found, NkiTensor):
            return found
    return None


def _described(tensor: NkiTensor) -> str:
    """What a tensor is, and holds, unless it has no values, as an empty slice or a tile of a loop that is over."""
    facts = ""
    if tensor.dtype.kind != "x":
        with suppress(NkiError):
            facts = f": {show.statistics(tensor.numpy())}"
    return f"{tensor.storage.label} {tensor.dtype} {tuple(tensor.shape)} in {tensor.buffer}{facts}"
