"""What tests of native code share: processes that know nothing yet, and a disk cache of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nkilite.native import versions

_LIBRARIES: list[dict] = []  # what they have loaded may be called by whatever is still there


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function to call to forget what has been compiled."""

    def forget() -> None:
        _LIBRARIES.append({})
        monkeypatch.setattr("nkilite.native.library._libraries", _LIBRARIES[-1])

    return forget


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk cache of the test's own."""
    monkeypatch.delenv("NKILITE_VERIFY", raising=False)
    monkeypatch.setenv("NKILITE_CACHE", "1")
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(versions, "_MARGIN", -(10**18))
    versions.versions.cache_clear()
    yield tmp_path
    versions.versions.cache_clear()
