"""The JSON record follows its published schema, and the difference of two versions adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nkilite as nki
from kernels.matmul import matmul, matmul_tiled
from nkilite.profiling.difference import changes
from nkilite.profiling.record import SCHEMA, write_record

_KINDS = {"number": (int, float), "integer": int, "string": str, "boolean": bool, "array": list, "object": dict,
          "null": type(None)}


def follows(value: Any, schema: dict[str, Any]) -> None:
    """What the schema uses of JSON Schema."""
    if "const" in schema or "enum" in schema:
        assert value in schema.get("enum", [schema.get("const")])
        return
    if isinstance(schema["type"], list):
        assert isinstance(value, tuple(_KINDS[kind] for kind in schema["type"]))
        return
    assert isinstance(value, _KINDS[schema["type"]])
    if schema["type"] == "array":
        for item in value:
            follows(item, schema["items"])
    if schema["type"] == "object":
        named = schema.get("properties", {})
        assert set(named) == set(value) if named else True
        for name, item in value.items():
            follows(item, named.get(name) or schema["additionalProperties"])


def test_the_record_follows_its_schema(tmp_path: Path) -> None:
    a = np.zeros((512, 512), np.float32)
    path = tmp_path / "profile.json"
    found = nki.profile(matmul_tiled, a, a, target="trn2")
    write_record(found, path)
    data = json.loads(path.read_text())
    follows(data, json.loads(SCHEMA.read_text()))
    assert data["latency_us"] == found.latency_us
    assert data["lines"][0]["code"] == found.lines[0].location.source.strip()


def test_the_difference_of_two_versions_adds_up_line_by_line() -> None:
    a = np.zeros((512, 512), np.float32)
    before, after = nki.profile(matmul_tiled, a, a, target="trn2"), nki.profile(matmul, a, a, target="trn2")
    found = changes(before, after)
    assert sum(c.critical_us for c in found) == pytest.approx(after.span_us - before.span_us)
    assert {c.before.location for c in found if c.before} == {c.location for c in before.lines}
    assert all(c.critical_us == 0 for c in changes(before, before))
