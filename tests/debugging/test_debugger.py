"""Debugger sessions driven by lists of commands: where they stop, and what they show."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.__main__ import app
from nkilite.debugger import Debugger, Quit

X = np.arange(128 * 8, dtype=np.float32).reshape(128, 8) - 3


def roots(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.activation(dst=tile, op=nl.sqrt, data=tile, scale=0.25)
    for i in range(2):
        nisa.tensor_scalar(tile, tile, nl.add, 1.0, name=f"add {i}")
    nl.store(out, tile)
    return out


FIRST = roots.__code__.co_firstlineno


def session(*commands, kernel=roots, arrays=(X,), cores=1):
    """What a session shows, as one text."""
    shown: list[str] = []
    result = nki.simulate(kernel, watch=Debugger(commands, shown.append))[cores](*arrays)
    return "\n".join(shown), result


def stops(text):
    """(core, instruction) of every stop."""
    return [(int(a), int(b)) for a, b in re.findall(r"^core (\d+), instruction (\d+)", text, re.M)]


def test_results_are_those_of_simulate():
    text, result = session("continue")
    np.testing.assert_array_equal(result, nki.simulate(roots)(X))
    assert stops(text) == [(0, 1)]


def test_steps_and_lines():
    text, _ = session("step", "s 2", "next")
    assert stops(text) == [(0, 1), (0, 2), (0, 4), (0, 5)]
    assert f"activation at {__file__}:{FIRST + 3}\n    nisa.activation(dst=tile" in text
    assert "tensor_scalar 'add 1'" in text
    text, _ = session("next", "next", "next", "next")  # the third leaves the loop's line
    assert stops(text) == [(0, 1), (0, 2), (0, 3), (0, 5)]


@pytest.mark.parametrize(
    ("place", "numbers"),
    [(str(FIRST + 5), [3, 4]), (f"test_debugger.py:{FIRST + 6}", [5]), (f"other.py:{FIRST + 6}", []),
     ("tensor_scalar", [3, 4]), ("add 1", [4]), ("nan", [2, 3, 4, 5]), ("inf", [])],
)
def test_breakpoints(place, numbers):
    text, _ = session(f"break {place}", *["continue"] * 9)
    assert [n for _, n in stops(text)[1:]] == numbers
    assert "breakpoint 1: " + place in text


def test_breakpoints_are_listed_and_deleted():
    text, _ = session("b nan", "b 3", "delete 1", "delete 7", "break", "c")
    assert text.count("breakpoint 1: nan") == 2 and text.rstrip().endswith("breakpoint 2: 3\n(nki) c")
    assert "there is no breakpoint 7" in text and len(stops(text)) == 1


def test_values_statistics_and_maps():
    text, _ = session("b activation", "c", "print tile[0:1, 2:6]", "stats tile", "map tile", "tiles", "operands",
                      "p data.shape[0] + 1", "p unknown", "stats i", "nonsense", "help", "p x[0:1, 0:2]")
    assert re.search(r"\[\[ *nan +0\. +0\.5 +0\.707107\]\]", text)
    assert "3 NaN, first at [0, 0]" in text and "min 0, max 15.96" in text
    assert "   0 NNN.....\n   4 ........" in text and "a cell is 4 x 1 elements" in text
    assert re.search(r"^  out = hbm\d+ float32 \(128, 8\) in shared_hbm", text, re.M)
    assert "  dst (written) = sb" in text and "  scale = 0.25" in text and "  op = sqrt" in text
    assert "(nki) p data.shape[0] + 1\n129\n" in text and "NameError: name 'unknown'" in text
    assert "no command 'nonsense'" in text and "step [N]: run one instruction" in text
    assert text.endswith("[[-3. -2.]]")


def on_cores(x):
    core = nl.program_id(0)
    out = nl.ndarray((2, 128, 8), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.add, float(core))
    nl.store(out[core], tile)
    return out


def test_both_cores():
    text, result = session("b tensor_scalar", "c", "p tile[0:1, 0:1]", "c", "p tile[0:1, 0:1]", "c",
                           kernel=on_cores, cores=2)
    assert stops(text)[1:] == [(0, 2), (1, 2)]
    assert text.index("[[-3.]]") < text.index("[[-2.]]")
    np.testing.assert_array_equal(result[1], X + 1)
    text, _ = session("core 1", "s", "s", "core x", "core all", "c", kernel=on_cores, cores=2)
    assert {core for core, _ in stops(text)[1:]} == {1}
    assert "x is no core" in text and "stops on all cores" in text


def test_quitting_ends_the_launch():
    for cores, kernel in ((1, roots), (2, on_cores)):
        with pytest.raises(Quit):
            session("step", "quit", "step", kernel=kernel, cores=cores)
    assert nki.simulate(roots)(X).shape == X.shape


def test_watch_is_told_of_every_instruction():
    told = []

    def watch(stop):
        told.append((stop.core, stop.number, stop.instruction, stop.name, stop.location.line - FIRST, stop.written))
        if stop.name == "add 0":
            assert stop.operands["dst"].numpy()[127, 7] == np.sqrt(X[127, 7] / 4) + 1
            assert stop.frame.f_locals["i"] == 0 and stop.numbers["operand0"] == 1

    nki.simulate(roots, watch=watch)(X)
    assert told == [
        (0, 1, "dma_copy", "", 2, ("dst",)), (0, 2, "activation", "", 3, ("dst",)),
        (0, 3, "tensor_scalar", "add 0", 5, ("dst",)), (0, 4, "tensor_scalar", "add 1", 5, ("dst",)),
        (0, 5, "dma_copy", "", 6, ("dst",)),
    ]
    with pytest.raises(errors.InvalidOperand, match="watch is int 3; expected a function of a Stop, or None"):
        nki.simulate(roots, watch=3)


KERNEL = '''
import nkilite as nki, nkilite.isa as nisa, nkilite.language as nl

@nki.jit
def double(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.multiply, 2.0)
    nl.store(out, tile)
    return out
'''


def test_command_line(tmp_path: Path):
    file = tmp_path / "mykernel.py"
    file.write_text(KERNEL)
    script = tmp_path / "commands"
    script.write_text("break tensor_scalar\ncontinue\n")
    arguments = ["debug", f"{file}:double", "4x4:float32", "--commands", str(script)]
    done = CliRunner().invoke(app, [*arguments, "-c", "stats tile"])
    assert done.exit_code == 0 and "breakpoint 1\ntensor_scalar at " in done.output
    assert f"{file}:8\n    nisa.tensor_scalar(tile" in done.output and done.output.endswith("the kernel has ended\n")
    done = CliRunner().invoke(app, ["debug", f"{file}:double[2]", "4x4:float32"], input="step\nwhere\nquit\n")
    assert done.exit_code == 0 and "core 1, instruction 1" in done.output and "has ended" not in done.output


def what_has_no_values(x):
    empty, unwritten, kept = x[0:0], nl.ndarray((4, 4), dtype=nl.float32, buffer=nl.sbuf), []  # noqa: F841
    nl.fori_loop(0, 2, lambda _: kept.append(nl.zeros((2, 2), dtype=nl.float32)))
    of_loop = kept[0]  # noqa: F841
    out = nl.ndarray((5, 3), dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(x[0:5]))
    return out


@pytest.mark.parametrize("dynamic", [None, {"x": {0: nki.Dim("n", max=64)}}])
def test_looking_at_what_has_no_values(dynamic):
    """A session survives looking at views that cannot be used, and changes nothing."""
    kernel, x = nki.jit(what_has_no_values, dynamic_shapes=dynamic), np.ones((5, 3), np.float32)
    commands = ["break dma_copy", "continue", "tiles", "print of_loop", "print empty", "print 1 /", "stats unwritten"]
    text, result = session(*commands, "print nisa.memset(unwritten, 0.0)", "stats unwritten", "c", kernel=kernel,
                           arrays=(x,))
    np.testing.assert_array_equal(result, x)
    assert re.search(r"of_loop = sb\d+ float32 \(2, 2\) in sbuf\n", text)
    assert "empty = x float32 (0, 3) in shared_hbm\n" in text
    assert "EmptySlice: " in text and "SyntaxError: " in text and "NotInKernel: " in text
    assert text.count("16 NaN, first at [0, 0]") >= 3  # also after what would have written it
