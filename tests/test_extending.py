"""docs/extending.md is true: everything it adds is added to a copy of the sources, as it says, and used there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"```(?:python|toml)\n# (\S+): ([^\n]*)\n(.*?)```", re.S)

# What text of a file comes before a place, as the page names it.
PLACES = {
    ("nkilite/isa/alu.py", "a row of TABLE"): '    "ALU operator",\n    (\n',
    ("nkilite/isa/activation_functions.py", "a row of TABLE"): '    "activation function",\n    (\n',
    ("nkilite/isa/__init__.py", "an import"): "from nkilite.isa.gather import local_gather, nc_n_gather\n",
    ("nkilite/schedule/pipeline.py", "an import"): "from nkilite.schedule.infer_panels import InferPanels\n",
    ("nkilite/__main__.py", "an import"): "from nkilite.cli.run import run\n",
    ("nkilite/__main__.py", "with the other commands"): "app.command()(profile)\n",
}
# What the page says in words: names that join lists.
NAMES = [
    ("nkilite/language/elementwise.py", "__all__ = [\n", '    "distance",\n'),
    ("nkilite/language/activations.py", "__all__ = [\n", '    "softsign",\n'),
    ("nkilite/language/__init__.py", "__all__ = [\n", '    "distance",\n    "softsign",\n'),
    ("nkilite/language/__init__.py", "from nkilite.language.elementwise import (\n", "    distance,\n"),
    ("nkilite/language/__init__.py", "from nkilite.language.activations import (\n", "    softsign,\n"),
    ("nkilite/isa/__init__.py", "__all__ = [\n", '    "tensor_lerp",\n'),
    ("nkilite/schedule/pipeline.py", "(FindBroadcast, InferPanels, ", "RowsOnly, "),
    ("kernels/__init__.py", "GALLERY = (\n", '    "doubled",\n'),
]

USED = '''
import contextlib, io, runpy, sys
import numpy as np
import kernels, kernels.__main__ as gallery
import nkilite as nki, nkilite.isa as nisa, nkilite.language as nl
from nkilite.schedule.pipeline import scheduled
from nkilite.ir.definition import REGISTRY, RULE_KINDS


@nki.jit
def kernel(x, y):
    a, b = nl.load(x), nl.load(y)
    tile = nl.ndarray(a.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(tile, a, b, nl.distance)
    nisa.activation(tile, nl.softsign, tile)
    nisa.tensor_lerp(tile, tile, b, 0.25)
    out = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    nl.store(out, nl.softsign(tile))
    return out


x, y = np.random.default_rng(0).standard_normal((2, 128, 512)).astype(np.float32)
far = abs(x - y) / (1 + abs(x - y))
wanted = far + (y - far) * np.float32(0.25)
wanted = wanted / (1 + abs(wanted))
for run in (kernel, nki.simulate(kernel)):
    np.testing.assert_allclose(run(x, y), wanted, rtol=1e-5, atol=1e-6)
passes = []
schedule = scheduled(kernel.trace(x, y), observe=lambda name, after: passes.append(name))
assert passes.index("RowsOnly") == passes.index("InferPanels") + 1
(group,) = schedule.groups
assert group.size == schedule.program.count, "what is new is fused with the rest"
assert set(RULE_KINDS) <= REGISTRY["tensor_lerp"].rules.keys()
assert nki.profile(kernel, x, y, target="gen9").target.name == "trn9"
gallery.GALLERY = ("doubled",)
with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert gallery.main() == 0
assert "doubled" in shown.getvalue()
sys.argv = ["nkilite", "peaks"]
runpy.run_module("nkilite", run_name="__main__", alter_sys=True)
'''


def test_every_addition_of_the_page_works(tmp_path):
    for package in ("nkilite", "kernels"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == len(re.findall("```(?:python|toml)", PAGE.read_text())) >= 10
    for file, place, text in blocks:
        if place == "a new file":
            assert not (tmp_path / file).exists()
            (tmp_path / file).write_text(text)
        elif place == "at the end":
            (tmp_path / file).write_text((tmp_path / file).read_text() + "\n\n" + text)
        else:
            _insert(tmp_path / file, PLACES[file, place], text)
    for file, before, text in NAMES:
        _insert(tmp_path / file, before, text)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NKI", "NEURON_"))}
    ran = subprocess.run(
        [sys.executable, "-c", USED], cwd=tmp_path, env={**environment, "NKILITE_CACHE": "0"}, text=True,
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^trn9 +79 TFLOP/s$", ran.stdout, re.M)


def _insert(file: Path, before: str, text: str) -> None:
    """Put text behind the first occurrence of another."""
    head, found, tail = file.read_text().partition(before)
    if not found:
        pytest.fail(f"{file.name} has no {before!r} any more: docs/extending.md says where things go")
    file.write_text(head + before + text + tail)
