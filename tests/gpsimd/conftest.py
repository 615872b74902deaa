"""Operators are compiled by the system's C++ compiler."""

from __future__ import annotations

import pytest

from nkilite.errors import CompilerMissing
from nkilite.gpsimd.build import compiler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        compiler()
    except CompilerMissing:
        for item in items:
            if item.path.parent.name == "gpsimd":
                item.add_marker(pytest.mark.skip(reason="there is no C++ compiler"))
