"""A drawing as one self-contained HTML page: drawing.html with the steps put in as JSON; it loads nothing."""

from __future__ import annotations

import json
import linecache
import os
import tempfile
import webbrowser
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from nkilite.drawing.pictures import Grid, Picture
from nkilite.drawing.steps import STEPS, Step, Touched, Watched, watch
from nkilite.ir.types import Buffer
from nkilite.notebook import frame
from nkilite.plain import plain_json
from nkilite.runtime.kernel import Kernel, jit

_AROUND = 12  # lines shown beside those of steps
_MOST_LINES = 1500  # of a file that is shown whole
_MEMORIES = {"sbuf": "SBUF", "psum": "PSUM"}


class Drawing:
    """A launch of a kernel to step through; notebooks show it."""

    def __init__(self, kernel: Kernel[...], watched: Watched) -> None:
        self._kernel, self.watched = kernel, watched

    def __repr__(self) -> str:
        found = self.watched
        return f"<drawing of {self._kernel.__name__}: {len(found.steps)} of {found.executed} instructions>"

    def _repr_html_(self) -> str:
        return frame(self.page(), height=760)

    def page(self) -> str:
        """The HTML text."""
        template = resources.files("nkilite.drawing").joinpath("drawing.html").read_text(encoding="utf-8")
        data = json.dumps(plain_json(_data(self._kernel, self.watched)), separators=(",", ":"))
        return template.replace("/*DATA*/null", data.replace("<", "\\u003c"))

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file."""
        Path(path).write_text(self.page(), encoding="utf-8")

    def show(self) -> None:
        """Show the page in the browser, from a file it says the name of where there is none."""
        name = f"-{self._kernel.__name__}.html"
        with tempfile.NamedTemporaryFile("w", suffix=name, delete=False, encoding="utf-8") as file:
            file.write(self.page())
        if not webbrowser.open(Path(file.name).as_uri()):
            print(f"written: {file.name}")


def draw(kernel: Any, *args: object, steps: int = STEPS, **kwargs: object) -> Drawing:
    """Simulate a launch of a kernel and draw what each of its first `steps` instructions reads and writes.

    Args:
        kernel: an `@nki.jit` kernel or a plain function.
        args, kwargs: its arguments, which are not written.

    Raises:
        OneCoreDrawn: it is launched on several cores.
    """
    found = jit(kernel)
    return Drawing(found, watch(found, args, kwargs, steps))


def _data(kernel: Kernel[...], watched: Watched) -> dict[str, object]:
    pictures: dict[Picture, int] = {}
    blocks: dict[str, int] = {}
    places = {id: place for place, id in enumerate(watched.buffers)}

    def touched(t: Touched) -> list[object]:
        return [
            t.operand, int(t.reads) + 2 * int(t.writes), places[t.buffer], list(t.shape), t.dtype,
            blocks.setdefault(t.blocks, len(blocks)), pictures.setdefault(t.picture, len(pictures)),
        ]

    files = list(dict.fromkeys(s.location.file for s in watched.steps))
    steps = [
        [
            s.engine, s.instruction, s.name, [list(a) for a in s.attributes], files.index(s.location.file),
            s.location.line, [touched(t) for t in s.touched],
        ]
        for s in watched.steps
    ]
    return {
        "kernel": kernel.__name__, "signature": str(kernel.signature), "count": watched.executed,
        "failure": "" if watched.failure is None else str(watched.failure),
        "files": [_source(file, watched.steps) for file in files],
        "buffers": [_buffer(b) for b in watched.buffers.values()],
        "steps": steps, "pictures": [list(p) for p in pictures], "blocks": list(blocks),
    }


def _buffer(buffer: Buffer) -> dict[str, object]:
    grid = Grid.of(buffer)
    return {
        "name": buffer.label, "memory": _MEMORIES.get(str(buffer.region), "HBM"), "dtype": str(buffer.dtype),
        "shape": list(buffer.shape), "rows": grid.rows, "columns": grid.columns,
        "down": grid.down.tolist(), "across": grid.across.tolist(),
    }


def _source(file: str, steps: Iterable[Step]) -> dict[str, object]:
    """The lines of a file that are shown: all of them, or those around the lines of steps."""
    lines = linecache.getlines(file)
    wanted = range(1, len(lines) + 1)
    at = [s.location.line for s in steps if s.location.file == file]
    if len(lines) > _MOST_LINES:
        wanted = range(max(1, min(at) - _AROUND), min(len(lines), max(at) + _AROUND) + 1)
    return {"name": os.path.basename(file), "lines": [[n, lines[n - 1].rstrip("\n")] for n in wanted]}
