"""Kernels that import `nki`: compat.install, the run command and the pytest plugin, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

KERNEL = """\
import sys
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl
import nki.typing as nt
import nki.collectives, nki.compiler
from nki.isa.constants import oob_mode
from nki.language import NKIObject

@nki.jit
def double(x: nt.tensor[4, 8], out: nt.mutable_tensor = None):
    t = nl.load(x)
    o = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
    nl.store(o, nl.multiply(t, 2.0))
    return o
"""


def python(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Runs Python; checks the exit code and returns what it printed, errors included."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def run(script: str, *arguments: str, tmp_path: Path, code: int = 0) -> str:
    (tmp_path / "program.py").write_text(script)
    return python("-m", "nkilite", "run", "program.py", *arguments, cwd=tmp_path, code=code)


def test_run_a_script(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 21\n")
    script = KERNEL + (
        "import beside\n"
        "x = np.full((4, 8), beside.VALUE, np.float32)\n"
        "print(double(x)[0, 0], nki.simulate(double)(x)[0, 0], sys.argv, __name__)\n"
        "sys.exit(3)\n"
    )
    out = run(script, "--help", "a b", tmp_path=tmp_path, code=3)
    assert out == "42.0 42.0 ['program.py', '--help', 'a b'] __main__\n"


def test_run_a_module(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "tool.py").write_text(KERNEL + "print(sys.argv[1:], __name__, __package__)\n")
    out = python("-m", "nkilite", "run", "-m", "package.tool", "-x", "--force", cwd=tmp_path)
    assert out == "['-x', '--force'] __main__ package\n"


def test_the_user_sees_his_own_frames(tmp_path):
    script = KERNEL + "@nki.jit\ndef wrong(x):\n    return nl.load(x)[:, 9:]\nwrong(np.ones((4, 8), np.float32))\n"
    out = run(script, tmp_path=tmp_path, code=1)
    assert "IndexOutOfBounds" in out
    assert "return nl.load(x)[:, 9:]" in out
    assert str(ROOT / "nkilite") not in out
    assert "runpy" not in out


def test_errors_of_the_program_keep_their_frames(tmp_path):
    out = run(KERNEL + "import json\njson.loads('{')\n", tmp_path=tmp_path, code=1)
    assert "json/decoder.py" in out
    assert "JSONDecodeError" in out
    assert "runpy" not in out


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("from neuronxcc.nki._private_kernels.mlp import mlp_isa_kernel as mlp; mlp[2]", "VendorModule: neuronxcc"),
        ("import neuronxcc.nki as old; old.gather", "UnknownName: neuronxcc.nki has no attribute 'gather'"),
        ("from nki.compiler.driver import CompileOptions", "VendorModule: nki.compiler.driver is part of the vendor's"),
        ("nki.compiler.backends", "VendorModule: nki.compiler.backends"),
        ("nki.jit(compile_confg=None)", "UnknownKeyword: nki.jit has no parameter 'compile_confg'"),
    ],
)
def test_what_is_not_there_says_so(statement, says, tmp_path):
    out = run(KERNEL + statement + "\n", tmp_path=tmp_path, code=1)
    assert says in out
    assert f'program.py", line {KERNEL.count(chr(10)) + 1}' in out
    assert "fix:" in out


def test_looking_for_packages_is_no_error(tmp_path):
    script = KERNEL + (
        "import importlib.util\n"
        "assert importlib.util.find_spec('neuronxcc') is not None\n"
        "from neuronxcc.nki._private_kernels import attention\n"
        "import neuronxcc.nki.typing as old\n"
        "def annotated(x: old.tensor | None, y: old.immutable): return x\n"
        "import nki, neuronxcc.nki.isa as nisa, neuronxcc.nki.language as nl\n"
        "from neuronxcc.nki.language.constants import sizeinbytes\n"
        "from nki.language.constants import sizeinbytes as size\n"
        "from neuronxcc.nki.language import constants\n"
        "assert constants.sizeinbytes is size is nki.language.constants.sizeinbytes\n"
        "assert (sizeinbytes(nl.bfloat16), size(nki.language.int8), size('float32')) == (2, 1, 4)\n"
        "assert nisa.constants.engine.vector is nisa.vector_engine\n"
        "from nkilite.errors import UnsupportedError\n"
        "try: old.scalar(nl)\n"
        "except UnsupportedError as error: assert 'in loops and masks' in str(error)\n"
        "else: raise AssertionError\n"
        "print(attention.attention_isa_kernel)\n"
    )
    assert "which nkilite does not have" in run(script, tmp_path=tmp_path)


BETA1 = """\
import numpy as np
import torch
import torch_xla.core.xla_model as xm
from torch_xla.core import xla_model
import neuronxcc.nki as nki
import neuronxcc.nki.language as nl
from neuronxcc.nki.typing import tensor

@nki.jit
def twice(x: tensor[4, 8]):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(x) * 2)
    return out

x = torch.ones((4, 8), dtype=torch.bfloat16).to(device=xm.xla_device())
y = twice(x)
xla_model.mark_step()
print(y.dtype, float(y.sum()), twice(x.requires_grad_()).requires_grad)
"""


def test_both_dialects_and_the_stub_of_torch_xla(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "program.py").write_text(BETA1)
    command = ("-m", "nkilite", "run")
    assert "No module named 'torch_xla'" in python(*command, "program.py", cwd=tmp_path, code=1)
    printed = python(*command, "--torch-xla-stub", "program.py", cwd=tmp_path)
    assert "program.py:18: GradientDropped: argument 'x' of kernel 'twice' requires a gradient" in printed
    assert "torch.bfloat16 64.0 False\n" in printed


ONE_PROCESS = """
import nkilite.compat
nkilite.compat.install(torch_xla=True)
import torch
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.distributed.parallel_loader as pl
import torch_xla.distributed.xla_multiprocessing as xmp
import torch_xla.runtime as xr
from torch_xla.debug import metrics

def step(rank, size):
    x = torch.ones(size, device=torch_xla.device())
    assert (rank, xr.global_ordinal(), xr.local_ordinal(), xm.get_ordinal(), xr.world_size()) == (0, 0, 0, 0, 1)
    assert xm.is_master_ordinal(local=False)
    assert xm.all_reduce(xm.REDUCE_SUM, x, scale=0.5).tolist() == [0.5] * size
    assert xm.reduce_scatter(xm.REDUCE_SUM, x, 2.0, 0, 1).tolist() == [2.0] * size
    with torch_xla.step():
        assert list(pl.MpDeviceLoader([x], torch_xla.device(), batches_per_execution=2)) == [x]
    assert xm.all_reduce(xm.REDUCE_MAX, [x], 0.5) is None and x.tolist() == [0.5] * size
    assert torch.equal(xm.all_gather(x, dim=0), x) and xm.mesh_reduce("sizes", size, sum) == size
    xm.set_rng_state(7, device=xm.xla_device())
    assert xm.get_rng_state() == 7
    xm.add_step_closure(xm.master_print, args=("size", size))
    torch_xla.sync(wait=True)

xmp.spawn(step, args=(3,), nprocs=1)
metrics.metrics_report()
"""


def test_the_stub_of_torch_xla_is_a_world_of_one_process(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "program.py").write_text(ONE_PROCESS)
    printed = python("program.py", cwd=tmp_path, code=1)
    assert printed.startswith("size 3\n")
    assert "VendorModule: torch_xla.debug.metrics.metrics_report" in printed


def test_modules_are_nkilites_own(tmp_path):
    script = (
        "import nkilite, nkilite.compat\n"
        "nkilite.compat.install()\nnkilite.compat.install()\n"
        "import nki, nki.isa.constants, nki.language\n"
        "assert nki is nkilite and nki.language is nkilite.language and nki.isa is nkilite.isa\n"
        "assert nki.isa.constants.oob_mode is nkilite.isa.oob_mode\n"
        "assert nkilite.language.__name__ == 'nkilite.language' and nkilite.__spec__.name == 'nkilite'\n"
    )
    python("-c", script, cwd=tmp_path)


def test_an_installed_package_is_not_shadowed(tmp_path):
    (tmp_path / "nki").mkdir()
    (tmp_path / "nki" / "__init__.py").write_text("REAL = True\n")
    program = "from nki import REAL\nprint(REAL)\n"
    out = run(program, tmp_path=tmp_path, code=1)
    assert "PackageShadowed" in out
    assert str(tmp_path / "nki") in out
    assert "--force" in out
    (tmp_path / "program.py").write_text("import nki\nprint(nki.__name__)\n")
    assert python("-m", "nkilite", "run", "--force", "program.py", cwd=tmp_path) == "nkilite\n"


def test_a_folder_of_that_name_is_no_package(tmp_path):
    (tmp_path / "nki").mkdir()
    assert run("import nki\nprint(nki.__name__)\n", tmp_path=tmp_path) == "nkilite\n"


TEST_FILE = KERNEL + "def test_it():\n    assert double(np.ones((4, 8), np.float32))[1, 1] == 2\n"


@pytest.mark.parametrize("how", ["run", "option", "ini"])
def test_pytest(how, tmp_path):
    (tmp_path / "test_kernel.py").write_text(TEST_FILE)
    (tmp_path / "conftest.py").write_text("import nki.language as nl\n")
    ini = "nki = true\n" if how == "ini" else ""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}")
    plugin = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:nkilite", "-p", "nkilite.pytest_plugin"]
    command = {
        "run": ["-m", "nkilite", "run", "-m", "pytest", "-p", "no:cacheprovider"],
        "option": [*plugin, "--nki"],
        "ini": plugin,
    }[how]
    assert "1 passed" in python(*command, "test_kernel.py", cwd=tmp_path)


def test_plugin_does_nothing_unasked(tmp_path):
    (tmp_path / "test_kernel.py").write_text(TEST_FILE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugin = ["-p", "no:nkilite", "-p", "nkilite.pytest_plugin"]
    out = python("-m", "pytest", *plugin, "test_kernel.py", cwd=tmp_path, code=2)
    assert "No module named 'nki'" in out


def test_typing_annotations():
    import nkilite.typing as nt

    annotation = nt.tensor[128, 512]
    assert (repr(annotation), annotation.shape, annotation.mutable) == ("nt.tensor[128, 512]", (128, 512), False)
    assert nt.mutable_tensor.mutable
    assert nt.mutable_tensor[4].shape == (4,)
    assert (nt.tensor | None) == (None | nt.tensor)
    with pytest.raises(TypeError, match=r"nl.ndarray"):
        nt.tensor((4, 4))


SIMULATOR = """
import nki.simulator
from nki.simulator import simulate_kernel

x = np.ones((4, 8), np.float32)
results = [
    simulate_kernel(double, (x,), {}), simulate_kernel(double, args=[], kwargs={"x": x}, _lnc=1),
    simulate_kernel(lambda x: double(x), [x], lnc=2), nki.simulator.simulate_kernel(double[2], (x,)),
]
assert all(isinstance(r, np.ndarray) and (r == 2).all() for r in results)
try:
    simulate_kernel(double, (x,), {}, lnc=3)
except nki.errors.InvalidGrid as error:
    print(error)
"""


def test_the_simulator_as_test_harnesses_call_it(tmp_path):
    assert "3 cores" in run(KERNEL + SIMULATOR, tmp_path=tmp_path)


OLDER_NAMES = """
import nki.builtin, nki.dtype as nt, nki.tensor, nki.language.dtypes as dtypes
from nki.compiler.frontend import NKIFrontend, ParserFrontend
from nki.dtype import bfloat16
from nki.tensor import NkiTensor

assert nt.float8_e4m3 is nl.float8_e4m3 is dtypes.float8_e4m3 is nki.dtype.float8_e4m3
assert isinstance(bfloat16, nki.dtype) and nki.tensor is NkiTensor
assert not hasattr(nki.dtype, "float9")
x = np.ones((4, 8), np.float32)
assert (nki.cpu_simulate(double)[1](x) == 2).all()
front: NKIFrontend = ParserFrontend()
made = front.compile(double, inputs={"x": x}, target="trn3", lnc=2, artifacts_dir="out", output_names=["o"])
made.module.operation.print(enable_debug_info=True)
"""


def test_names_of_older_releases(tmp_path):
    out = run(KERNEL + OLDER_NAMES, tmp_path=tmp_path)
    assert out.count("program double on trn3") == 2
