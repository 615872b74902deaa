"""Members that are said to be able to take turns at rows, or at rows and columns, meet nowhere else."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from nkilite.schedule.parser import parse_schedule
from nkilite.schedule.rows import Rows, in_order, row_shape

PARTITIONS, COLUMNS = 8, 24
HEAD = f"""\
program kernel on trn2
buffer %out = internal shared_hbm float32[{PARTITIONS}, {COLUMNS}]
buffer %a = internal sbuf float32[{PARTITIONS}, {COLUMNS}]
buffer %b = internal sbuf float32[{PARTITIONS}, {COLUMNS}]
output %out
"""
FREE = ((1, 6),), ((2, 6),), ((1, 2), (2, 3)), ((3, 2), (1, 3)), ((8, 2), (1, 3)), ((0, 6),)
View = tuple[int, tuple[tuple[int, int], ...]]  # first element, (stride, count) of dimensions


@st.composite
def views(draw: st.DrawFn, rows: int) -> View:
    """Some partitions of %a, and of each of them some columns, whose order may be turned."""
    step = draw(st.sampled_from([s for s in (1, 2) if (rows - 1) * s < PARTITIONS]))
    first = draw(st.integers(0, PARTITIONS - 1 - (rows - 1) * step))
    free = draw(st.sampled_from(FREE))
    reach = sum(stride * (count - 1) for stride, count in free)
    column = draw(st.sampled_from([0, 1, 3, 6, COLUMNS - 1 - reach]))
    return first * COLUMNS + column, ((step * COLUMNS, rows), *free)


def _elements(view: View) -> list[tuple[int, int, int]]:
    """(row, column, element) of a view, rows and columns counted in its own order."""
    first, ((step, rows), *free) = view
    places = product(*(range(count) for _, count in free))
    offsets = [sum(i * stride for i, (stride, _) in zip(place, free)) for place in places]
    return [(r, c, first + r * step + offset) for r in range(rows) for c, offset in enumerate(offsets)]


def _text(name: str, view: View) -> str:
    first, dims = view
    return f"%{name} + {first} [{', '.join(f'[{s}, {n}]' for s, n in dims)}]"


@settings(max_examples=300, deadline=None)
@given(data=st.data(), columns=st.booleans())
def test_whoever_may_take_turns_meets_in_step(data, columns) -> None:
    rows = data.draw(st.sampled_from([2, 4]))
    written, read = data.draw(views(rows)), data.draw(views(rows))
    if len({place for *_, place in _elements(written)}) < 6 * rows:
        written = written[0] // COLUMNS * COLUMNS, (written[1][0], (1, 6))  # what is written twice is not by row
    whole = 0, ((COLUMNS, rows), (1, 6))
    program = parse_schedule(
        HEAD + f"vector  tensor_copy(dst={_text('a', written)}, src={_text('b', whole)}, engine=Engine.vector)\n"
        f"vector  tensor_copy(dst={_text('b', whole)}, src={_text('a', read)}, engine=Engine.vector)\n"
    )
    starts = program.program.starts()
    accesses = []
    for start, position in zip(starts, (0, 1)):
        shape = row_shape(program.program.signatures[program.program.code[start]])
        assert shape is not None
        accesses.append(Rows(program).accesses(shape, 0, start)[position])
    by_place: dict[int, set[tuple[int, int]]] = {}
    for r, c, place in _elements(written):
        by_place.setdefault(place, set()).add((r, c))
    meetings = [((r, c), other) for r, c, place in _elements(read) for other in by_place.get(place, ())]
    apart = all(here == there if columns else here[0] == there[0] for here, there in meetings)
    said = in_order(*accesses, rows, columns)
    assert apart or not said
    assert said or (meetings and written != read)
