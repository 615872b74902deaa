"""What waits for a module waits until it is imported, whoever looked for it before."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from nkilite.frameworks.imports import once_imported


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package that has not been imported."""
    name = f"waited_for_{tmp_path.name}"
    (tmp_path / name).mkdir()
    source = "import sys\nif 'broken' in vars(sys):\n    raise ValueError('broken')\n"
    (tmp_path / name / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return name


def test_once_when_it_is_imported(package: str) -> None:
    told: list[str] = []
    for who in ("a", "b"):
        once_imported(package, lambda who=who: told.append(who))  # type: ignore[misc]
    assert told == []
    for _ in range(2):
        importlib.import_module(package)
        assert sorted(told) == ["a", "b"]
    once_imported(package, lambda: told.append("late"))
    assert told[2:] == ["late"]


def test_a_module_that_was_only_looked_for(package: str) -> None:
    told: list[str] = []
    once_imported(package, lambda: told.append(package))
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.loader is not None
    assert spec.loader.is_package(package)  # type: ignore[attr-defined]
    assert told == []
    module = importlib.import_module(package)
    assert told == [package]
    assert type(module.__loader__).__module__ != once_imported.__module__


def test_a_module_whose_import_fails_at_first(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    once_imported(package, lambda: told.append(package))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "broken", True, raising=False)
        with pytest.raises(ValueError, match="broken"):
            importlib.import_module(package)
    assert told == []
    importlib.import_module(package)
    assert told == [package]
