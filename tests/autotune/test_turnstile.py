"""Compiling and measuring on one host: any number compile together, a measurement is alone and does not starve."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time

import pytest

from autotune.measure import turnstile


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class Visitor(threading.Thread):
    """Goes through the turnstile and stays until told."""

    def __init__(self, through) -> None:
        super().__init__(daemon=True)
        self.through = through
        self.inside, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.through():
            self.inside.set()
            self.leave.wait(30)

    def enters(self) -> bool:
        return self.inside.wait(10)

    def stays_out(self) -> bool:
        return not self.inside.wait(0.2)


def test_many_together_one_alone() -> None:
    first, second = Visitor(turnstile.many), Visitor(turnstile.many)
    assert first.enters()
    assert second.enters()
    measuring = Visitor(turnstile.alone)
    assert measuring.stays_out()
    late, another = Visitor(turnstile.many), Visitor(turnstile.alone)
    first.leave.set()
    assert measuring.stays_out()
    assert late.stays_out()  # who measures is not starved by those that come after
    second.leave.set()
    assert measuring.enters() or another.enters()
    inside = [v for v in (measuring, another) if v.inside.is_set()]
    assert len(inside) == 1
    assert late.stays_out()
    for visitor in (measuring, another, late):
        visitor.leave.set()
    assert all(visitor.enters() for visitor in (measuring, another, late))


def test_a_holder_that_is_killed_lets_others_in(tmp_path) -> None:
    program = (
        "import tempfile, time; from autotune.measure import turnstile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with turnstile.alone(): print('inside', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "inside\n"
    waiting = Visitor(turnstile.many)
    assert waiting.stays_out()
    process.kill()
    process.wait()
    assert waiting.enters()
    waiting.leave.set()
    waiting.join()
    began = time.monotonic()
    with turnstile.alone():
        pass
    assert time.monotonic() - began < 10
