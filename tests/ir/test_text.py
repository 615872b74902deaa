"""Program text: stable, complete, and read back to the same program."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import IrError
from nkilite.ir import attributes, parse_program, print_program, verify
from nkilite.native.compile import compile_program
from nkilite.passes.pipeline import run_pipeline


@nki.jit
def add(a, b):
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm, name="out")
    a_tile = nl.ndarray((64, 32), dtype=a.dtype, buffer=nl.sbuf)
    b_tile = nl.ndarray((64, 32), dtype=a.dtype, buffer=nl.sbuf, name="b tile")
    nisa.dma_copy(dst=a_tile, src=a)
    nisa.dma_copy(dst=b_tile, src=b)
    copied = nisa.tensor_copy(dst=a_tile[:, 0:16], src=b_tile[:, 1:32:2], name="half")
    nisa.memset(dst=a_tile[32:64, 16:32], value=-0.0)
    nisa.tensor_tensor(dst=b_tile, data1=a_tile, data2=b_tile, op=nl.add).depends_on(copied)
    nisa.dma_copy(dst=out, src=b_tile)
    return out


GOLDEN = """\
program add on trn2
file test_text.py = "{file}"
buffer %a = input shared_hbm float32[64, 32]  ; test_text.py:18
buffer %b = input shared_hbm float32[64, 32]  ; test_text.py:18
buffer %out = internal shared_hbm float32[64, 32]  ; test_text.py:19
buffer %sb3 = internal sbuf float32[64, 32]  ; test_text.py:20
buffer %sb4 = internal sbuf float32[64, 32] name 'b tile'  ; test_text.py:21
output %out
dma     dma_copy(dst=%sb3, src=%a)  ; test_text.py:22
dma     dma_copy(dst=%sb4, src=%b)  ; test_text.py:23
vector  tensor_copy(dst=%sb3 [[32, 64], [1, 16]], src=%sb4 + 1 [[32, 64], [2, 16]], engine=Engine.vector) \
name 'half'  ; test_text.py:24
vector  memset(dst=%sb3 + 1040 [[32, 32], [1, 16]], value=-0.0, engine=Engine.vector)  ; test_text.py:25
vector  tensor_tensor(dst=%sb4, data1=%sb3, data2=%sb4, op=alu.add, engine=Engine.vector) after [2]  ; test_text.py:26
dma     dma_copy(dst=%out, src=%sb4)  ; test_text.py:27
"""


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((64, 32), dtype=np.float32) for _ in range(2)]


def test_golden() -> None:
    text = print_program(add.trace(*arrays()))
    assert text == GOLDEN.replace("{file}", __file__)


def test_round_trip_before_and_after_passes() -> None:
    program = add.trace(*arrays())
    for _ in range(2):
        text = "".join(line for line in print_program(program).splitlines(True) if "//" not in line)
        again = parse_program(text)
        verify(again)
        assert print_program(again) == text
        program = run_pipeline(program)


def test_parsed_program_runs() -> None:
    a, b = arrays()
    program = parse_program(print_program(add.trace(a, b)))
    out = np.empty_like(a)
    compile_program(program).executable.run([a, b, out])
    np.testing.assert_array_equal(out, add(a, b))


@nki.jit
def oddly_named(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="it's  ; out:3")
    tile, plain, other = (nl.ndarray(x.shape, dtype=x.dtype, name=n) for n in ('"(\n\u2028', None, "sb3"))
    last = nl.ndarray(x.shape, dtype=x.dtype, name="sb5")
    nisa.dma_copy(dst=tile, src=x, name="it's, 'a' \\ name  ; a:1")
    for buffer, value in ((plain, float("nan")), (other, -np.nan), (last, -np.inf)):
        nisa.memset(dst=buffer, value=value)
        nisa.tensor_tensor(dst=tile, data1=tile, data2=buffer, op=nl.maximum)
    nl.device_print("a %s {,} 'x' \"y\"\n\x85  ; q:1", tile)
    nisa.dma_copy(dst=out, src=tile)
    return out


def test_strings_and_numbers_of_any_kind_are_read_back() -> None:
    program = oddly_named.trace(np.zeros((64, 32), np.float32))
    program.name, program.affine, program.renames = "it's\n", [[0, 3, 7]], True
    again = parse_program(print_program(program))
    assert print_program(again) == print_program(program)
    assert [b.name for b in again.buffers] == [b.name for b in program.buffers]
    assert np.array(again.constants).tobytes() == np.array(program.constants).tobytes()
    for fact in ("name", "names", "affine", "renames", "dependencies"):
        assert getattr(again, fact) == getattr(program, fact)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("dma     dma_copy(dst=%out)", "needs src"),
        ("dma     dma_copy(dst=%out, dst=%out, src=%a)", "column 28: a second dst"),
        ("dma     dma_copy(dst=%out, source=%a)", "needs src"),
        ("dma     dma_copy(dst=%out, src=%a, into=3)", "column 36: dma_copy has no argument into"),
        ("dma     dma_copy(dst=%out, src=%a [[1.5, 3]])", "column 32: malformed operand"),
        ("vector  memset(dst=%out, value=(1, 2))", "real number"),
        ("gpsimd  iota(dst=%sb3, pattern=((2,),), offset=0.0)", "not enough values"),
        ("buffer %a = input shared_hbm float32[64]", "column 8: a second buffer"),
        ("buffer %c = input shared_hbm float32[1e99]", "malformed buffer"),
        ("program add on trn2", "a second program"),
        ("dma     dma_copy(dst=%nowhere, src=%a)", "column 23: unknown name 'nowhere'"),
        ("dma     dma_fly(dst=%out, src=%a)", "dma_fly"),
        ("dma     dma_copy dst", "malformed"),
        ("vector  tensor_tensor(dst=%sb4, data1=%sb3, data2=%sb4, op=alu.shout)", "shout"),
    ],
)
def test_malformed_text_names_the_line(broken: str, message: str) -> None:
    text = print_program(add.trace(*arrays()))
    with pytest.raises(IrError, match=message) as error:
        parse_program(text + broken)
    assert f"line {len(text.splitlines()) + 1} " in str(error.value)


@pytest.mark.parametrize("value", [0.1, -2.5, float("inf"), float("-inf"), float("nan"), (1, float("-inf"), None)])
def test_attributes_are_read_back(value: object) -> None:
    assert repr(attributes.parse(attributes.text(value))) == repr(value)


def test_verifier_rejects_views_outside_their_buffer() -> None:
    text = print_program(add.trace(*arrays())).replace("%sb3 + 1040 [[32, 32]", "%sb3 + 2040 [[32, 32]")
    with pytest.raises(IrError, match=r"covers bytes .* of 8192"):
        verify(parse_program(text))


def test_verifier_applies_the_hardware_rules() -> None:
    text = print_program(add.trace(*arrays())).replace("src=%sb4)", "src=%sb4 [[32, 64], [1, 16]])")
    with pytest.raises(nki.errors.ShapeMismatch):
        verify(parse_program(text))
