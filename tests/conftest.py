"""Tests compile what they run: what another run left in the disk cache must not hide a mistake.

Where programs are what is tested, they are verified after every pass.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("NKILITE_CACHE", "0")

_VERIFIED = {"codegen", "native", "passes"}


@pytest.fixture(autouse=True)
def verified_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path(request.path).parent.name in _VERIFIED:
        monkeypatch.setenv("NKILITE_VERIFY", "1")
