"""The passes over programs, each on a text: what it makes of it, or what it refuses."""

from __future__ import annotations

import base64

import pytest

from nkilite import errors
from nkilite.ir import parse_program, print_program, verify
from nkilite.passes.pipeline import PIPELINE

HEAD = """\
program kernel on trn2
buffer %x = input shared_hbm float32[128, 512]
buffer %out = internal shared_hbm float32[128, 512]
"""
TILE = "buffer %tile = internal sbuf float32[128, 512]\n"
LOAD = "dma     dma_copy(dst=%tile, src=%x)\n"
STORE = "dma     dma_copy(dst=%out, src=%tile)\n"
EXP = "scalar  activation(dst=%tile, op=act.exp, data=%tile, scale=1.0)\n"

# By pass: a program, and what it becomes, text for text.
CHANGED: dict[str, tuple[str, dict[str, str]]] = {
    "BringPartitions": (
        HEAD.replace("on trn2\n", "on trn2\nplaced\n") + TILE + "output %out\n" + LOAD
        + "scalar  activation(dst=%tile + 2560 [[512, 3], [1, 512]], op=act.exp, data=%tile [[512, 3], [1, 512]], "
        "scale=1.0)\n",
        {
            "output": "buffer %sb3 = internal sbuf float32[3, 512]\noutput",
            "dst=%tile + 2560 [[512, 3], [1, 512]]": "dst=%sb3",
            "scale=1.0)\n": "scale=1.0)\ndma     dma_copy(dst=%tile + 2560 [[512, 3], [1, 512]], src=%sb3)\n",
        },
    ),
    "FollowWrites": (
        HEAD + TILE + "buffer %sum = internal psum float32[128, 512]\noutput %out\n" + LOAD
        + "tensor  nc_matmul(dst=%sum, stationary=%tile [[512, 128], [1, 128]], moving=%tile)\n"
        "tensor  nc_matmul(dst=%sum, stationary=%tile + 128 [[512, 128], [1, 128]], moving=%tile)\n",
        {
            "tile [[512, 128], [1, 128]], moving=%tile": "tile [[512, 128], [1, 128]], moving=%tile, accumulate=False",
            "+ 128 [[512, 128], [1, 128]], moving=%tile": "+ 128 [[512, 128], [1, 128]], moving=%tile, accumulate=True",
        },
    ),
    "FillUnwritten": (
        HEAD + TILE + "output %out\ndma     dma_copy(dst=%tile [[512, 128], [1, 256]], src=%x [[512, 128], [1, 256]])\n"
        + STORE,
        {"dma     dma_copy(dst=%tile": "vector  fill_unwritten(dst=%tile as uint8 [[2048, 128], [1, 2048]], "
         "value=255.0)\ndma     dma_copy(dst=%tile"},
    ),
    "Allocate": (
        HEAD + TILE + "buffer %fixed = internal sbuf float32[128, 512] address (0, 0)\noutput %out\n" + LOAD
        + "vector  tensor_copy(dst=%fixed, src=%tile, engine=Engine.vector)\n",
        {TILE: TILE.strip() + " planned (0, 2048)\n", "address (0, 0)": "address (0, 0) planned (0, 0)"},
    ),
    "SeparateTiles": (
        HEAD + "buffer %one = internal sbuf float32[128, 512] address (0, 0)\n"
        "buffer %two = internal sbuf float32[128, 512] address (0, 0)\n"
        "buffer %seen = internal sbuf float32[128, 512] address (0, 4096)\n"
        "buffer %view = internal sbuf bfloat16[128, 64] address (0, 4096)\noutput %out\n"
        "dma     dma_copy(dst=%one, src=%x)\n"
        "vector  tensor_copy(dst=%seen, src=%one, engine=Engine.vector)\n"
        "vector  memset(dst=%view, value=0.0, engine=Engine.vector)\n"
        "dma     dma_copy(dst=%two, src=%x)\n"
        "vector  tensor_tensor(dst=%two, data1=%two, data2=%seen, op=alu.add, engine=Engine.vector)\n"
        "dma     dma_copy(dst=%out, src=%two)\n",
        {"address (0, 0)": "planned (0, 0)"},
    ),
    "RoundStochastically": (
        HEAD + "buffer %tile = internal sbuf bfloat16[128, 2]\nbuffer %state = registers registers uint32[128, 4]\n"
        f"buffer %seed = constant shared_hbm uint32[128, 4] data {base64.b64encode(bytes(2048)).decode()}\n"
        "output %out\nsync    set_rounding(dst=%state, src=%seed)\n"
        "vector  tensor_scalar(dst=%tile, data=%tile, op0=alu.multiply, operand0=0.5, engine=Engine.vector)\n",
        {
            "output": "buffer %hbm5 = constant shared_hbm uint32[1, 2] data MlBiZJx5wNk=\n"
            "buffer %sb6 = internal sbuf float32[128, 2]\noutput",
            "tensor_scalar(dst=%tile": "tensor_scalar(dst=%sb6",
            "operand0=0.5, engine=Engine.vector)\n": "operand0=0.5, engine=Engine.vector)\n"
            "sync    round_stochastically(dst=%tile, data=%sb6, low=%state [[4, 128], [1, 1]], "
            "high=%state + 1 [[4, 128], [1, 1]], columns=%hbm5, site_low=3720533874.0, site_high=3220144176.0)\n",
        },
    ),
    "WatchNumbers": (
        HEAD.replace("on trn2\n", "on trn2\nwatch 'nan'\n") + TILE + "output %out\n" + LOAD + EXP,
        {
            "output": "buffer %numbers = registers sbuf uint32[128, 5]\n"
            "buffer %hbm4 = constant shared_hbm uint32[1, 1] data AQAAAA==\noutput",
            "output %out\n": "output %out\nwatched %numbers\ncheck ('dma_copy', 'dst', 'tile', (128, 512))\n"
            "check ('activation', 'dst', 'tile', (128, 512))\n",
            LOAD: LOAD + "sync    find_special(data=%tile, state=%numbers, number=1.0)\n",
            EXP: EXP + "sync    find_special(data=%tile, state=%numbers, number=2.0)\n",
        },
    ),
}  # fmt: skip

# By pass: the last instruction of a program that it refuses, and one like it that it leaves as it is.
REFUSED = {
    "CheckDestinations": (
        errors.OverlappingDestination, "dst and reduce_res share memory",
        *(
            "scalar  activation(dst=%tile [[512, 128], [1, 256]], op=act.exp, data=%tile [[512, 128], [1, 256]], "
            f"scale=1.0, reduce_op=alu.add, reduce_res=%tile + {column} [[512, 128], [1, 1]], "
            "reduce_cmd=reduce_cmd.reset_reduce)\n" for column in (255, 256)
        ),
    ),
    "CheckPartitions": (
        errors.PartitionStartMisplaced, "dst covers partitions 1 to 32",
        *(
            f"vector  memset(dst=%tile + {512 * row} [[512, 32], [1, 512]], value=0.0, engine=Engine.vector)\n"
            for row in (1, 32)
        ),
    ),
}  # fmt: skip


def run(name: str, text: str) -> str:
    program = parse_program(text)
    verify(program)
    (kind,) = (kind for kind in PIPELINE if kind.__name__ == name)
    program = kind().run(program)
    verify(program, after=name)
    return print_program(program)


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_pass_makes(name: str) -> None:
    before, changes = CHANGED[name]
    expected = before
    for old, new in changes.items():
        assert old in expected
        expected = expected.replace(old, new)
    assert run(name, before) == expected


def test_rows_are_brought_only_where_the_compiler_places_tiles() -> None:
    text = CHANGED["BringPartitions"][0].replace("placed\n", "")
    assert run("BringPartitions", text) == text


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_pass_refuses(name: str) -> None:
    error, said, wrong, right = REFUSED[name]
    text = HEAD + TILE + "output %out\n" + LOAD
    assert run(name, text + right) == text + right
    with pytest.raises(error, match=said):
        run(name, text + wrong)


def test_every_pass_has_a_test() -> None:
    assert {*CHANGED, *REFUSED} == {kind.__name__ for kind in PIPELINE}
