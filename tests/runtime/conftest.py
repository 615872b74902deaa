"""What tests of launches share."""

from __future__ import annotations

import pytest

from nkilite.runtime import specialization


@pytest.fixture
def traces(monkeypatch) -> list[str]:
    """The names of kernels that are traced."""
    names: list[str] = []
    original = specialization.trace

    def trace(kernel, arguments):
        names.append(kernel.__name__)
        return original(kernel, arguments)

    monkeypatch.setattr(specialization, "trace", trace)
    return names
