"""A table of mistakes: kernels with one wrong line, the error each must raise, and what the message must say."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import NkiError

MODES = {"simulate": nki.simulate, "compiled": nki.jit}
X = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
_PACKAGE = Path(nki.__file__).parent
_MARK = "# here"


class Mistake(NamedTuple):
    """A kernel that must fail.

    Attributes:
        kernel: its offending line ends in ``# here``.
        error: the exact class.
        says: texts the message must contain: what was found, the limit, the remedy.
        arrays: the kernel's arguments.
        target: the chip, where it matters.
    """

    kernel: Callable
    error: type[NkiError]
    says: tuple[str, ...]
    arrays: tuple[Any, ...]
    target: str


class Table:
    """The mistakes of one test module: a decorator that collects them."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def __call__(
        self, error: type[NkiError], *says: str, arrays: tuple[Any, ...] = (X,), target: str = "trn2"
    ) -> Callable[[Callable], Callable]:
        def add(kernel: Callable) -> Callable:
            self.mistakes.append(Mistake(kernel, error, says, arrays, target))
            return kernel

        return add

    @property
    def parametrize(self) -> Any:
        """Parametrizes a test over `mistake` and `mode`."""
        cases = [
            pytest.param(m, mode, id=f"{m.kernel.__name__}-{mode}") for m in self.mistakes for mode in MODES
        ]
        return pytest.mark.parametrize(("mistake", "mode"), cases)


def check(mistake: Mistake, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a mistaken kernel and require the error its table row promises."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", mistake.target)
    launch = MODES[mode](mistake.kernel)
    with pytest.raises(NkiError) as caught:
        launch(*mistake.arrays)
    error = caught.value
    message = str(error)
    assert type(error) is mistake.error, message
    for text in mistake.says:
        assert text in message, f"{text!r} is missing in:\n{message}"
    check_location(error, mistake.kernel)
    check_hidden_frames(error)


def check_location(error: NkiError, function: Callable) -> None:
    """The error names the marked line of a function, and shows it; a remedy follows."""
    lines, first = inspect.getsourcelines(function)
    marked = [first + i for i, line in enumerate(lines) if line.rstrip().endswith(_MARK)]
    assert len(marked) == 1, "mark the one offending line"
    message = str(error)
    assert (error.location.file, error.location.line) == (inspect.getsourcefile(function), marked[0]), message
    assert f"at {error.location.file}:{marked[0]}" in message
    assert lines[marked[0] - first].strip() in message
    assert "\n  fix: " in message
    assert message.endswith((".", "?")), message


def check_hidden_frames(error: BaseException) -> None:
    """Of nkilite, the traceback a user sees has the frame of the kernel call alone."""
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    ours = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(_PACKAGE)]
    assert [f.name for f in ours] == ["__call__"], [f"{f.filename}:{f.lineno}" for f in ours]


def sbuf(shape: Any = (64, 32), dtype: Any = nl.float32, value: float | None = 0) -> Any:
    """In a kernel: an SBUF tile, written unless `value` is None."""
    return _tile(shape, dtype, nl.sbuf, value)


def psum(shape: Any = (64, 32), dtype: Any = nl.float32, value: float | None = 0) -> Any:
    """In a kernel: a PSUM tile, written unless `value` is None."""
    return _tile(shape, dtype, nl.psum, value)


def _tile(shape: Any, dtype: Any, buffer: Any, value: float | None) -> Any:
    tile = nl.ndarray(shape, dtype=dtype, buffer=buffer)
    if value is not None:
        nisa.memset(tile, value)
    return tile


def stored(tile: Any) -> Any:
    """In a kernel: an HBM copy of an SBUF tile, to return."""
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out
