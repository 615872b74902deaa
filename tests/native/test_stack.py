"""Launches from threads with little stack: scratch and the compiler get a stack of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from nkilite.native import stack


def test_room() -> None:
    """What fits runs here, anything else on another thread, which hands on results and errors."""

    def running(*arguments: int) -> tuple[int, ...]:
        return (threading.get_ident(), *arguments)

    here, _ = stack.with_room(1 << 10, running, 1)
    there, two, three = stack.with_room(1 << 30, running, 2, 3)
    assert here != there
    assert (two, three) == (2, 3)
    with pytest.raises(ZeroDivisionError):
        stack.with_room(1 << 30, lambda: 1 // 0)


@pytest.mark.parametrize("optimize", ["always", "never"])
def test_small_threads(optimize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gallery, compiled and run on threads of 64 KiB: whoever has too little stack ends the process."""
    monkeypatch.setenv("NKILITE_OPTIMIZE", optimize)
    program = """
        import importlib, threading
        import numpy as np
        from kernels import GALLERY
        from nkilite.native import stack

        work, results, deepest = [], [], []
        for name in GALLERY:
            module = importlib.import_module(f"kernels.{name}")
            case = module.CASES[0]
            work.append((getattr(module, name), module.inputs(dtype=case.dtype, seed=1, **case.shape), case.options))

        def run(kernel, arrays, options):
            found = kernel(*(a.copy() for a in arrays), **options)
            return found if isinstance(found, tuple) else (found,)

        def body():
            assert not stack.fits(0)
            for kernel, arrays, options in work:
                results.append(run(kernel, arrays, options))
                deepest.append(kernel.compile(*arrays, **options).lowered.stack)

        before = threading.stack_size(64 << 10)
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        same = [
            all(np.array_equal(x, y) for x, y in zip(run(*launch), found, strict=True))
            for launch, found in zip(work, results, strict=True)
        ]
        print(all(same), max(deepest) > 64 << 10, threading.stack_size(before) == 64 << 10)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (ended.returncode, ended.stdout.split()) == (0, ["True"] * 3), ended.stdout + ended.stderr
