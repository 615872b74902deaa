"""The names of the public API: ours against the stored list, and the list against stubs."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from conformance import names

STUBS = """
from enum import Enum
class engine(Enum):
    tensor: int = ...
class NkiThing:
    @property
    def size(self): ...
    def moved(self, by: int = 3, *, name=None): ...
    def _hidden(self): ...
unknown_engine: engine = ...
def memset(dst: NkiThing, value, engine=engine.unknown, name=None):
    ...
"""


def test_ours_are_as_documented():
    assert names.differences(names.stored()) == []


@pytest.mark.parametrize(
    ("name", "documented", "found"),
    [
        ("isa.memset", "dst value engine=engine.vector name=None", "dst value engine=Engine.unknown name=None"),
        ("isa.memset", "dst number", "dst value engine=Engine.unknown name=None"),
        ("isa.memzero", "dst", "missing"),
        ("language.int32", "x", "value"),
        ("language.NkiTensor.data", "class", "value"),
    ],
)
def test_a_difference_shows(name, documented, found):
    listed = names.stored()._replace(names={name: documented}, differences={})
    assert names.differences(listed) == [names.Difference(name, documented, found)]
    assert names.differences(listed._replace(differences={name: "known"})) == []


@pytest.mark.parametrize("documented", ["dst value engine=...", "dst value engine=engine.unknown"])
def test_what_is_not_published_or_comes_after_is_no_difference(documented):
    listed = names.stored()._replace(names={"isa.memset": documented}, differences={})
    assert names.differences(listed) == []
    needless = names.differences(listed._replace(differences={"isa.memset": "why"}))
    assert [d.name for d in needless] == ["isa.memset"]


def test_stubs(tmp_path):
    (tmp_path / "nki" / "isa").mkdir(parents=True)
    (tmp_path / "nki" / "isa" / "__init__.py").write_text(STUBS)
    found = names.read_stubs(tmp_path)
    assert found == {
        "isa.engine": "class", "isa.engine.tensor": "value", "isa.NkiThing": "class", "isa.NkiThing.size": "value",
        "isa.NkiThing.moved": "by=3 name=None", "isa.unknown_engine": "value",
        "isa.memset": "dst value engine=engine.unknown name=None",
    }
    assert [d.name for d in names.changes({**found, "isa.memset": "dst"}, found)] == ["isa.memset"]


def test_the_command(tmp_path):
    import typer

    app = typer.Typer()
    app.command()(names.main)
    found = CliRunner().invoke(app, [])
    assert found.exit_code == 0
    assert "0 differ" in found.stdout
