"""pytest plugin: with `--nki`, or `nki = true` in the ini file, tests import nkilite under the name nki."""

from __future__ import annotations

import pytest

from nkilite import compat


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nkilite")
    group.addoption("--nki", action="store_true", default=False, help="let `import nki` mean nkilite")
    group.addoption(
        "--nki-force",
        action="store_true",
        default=False,
        help="the same, in place of an installed nki package",
    )
    group.addoption(
        "--torch-xla-stub",
        action="store_true",
        default=False,
        help="with --nki, let torch_xla and torch_neuronx be stand-ins on the CPU",
    )
    parser.addini("nki", type="bool", default=False, help="let `import nki` mean nkilite")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any conftest.py is imported."""
    options = early_config.known_args_namespace
    if options.nki or options.nki_force or early_config.getini("nki"):
        compat.install(force=options.nki_force, torch_xla=options.torch_xla_stub)
