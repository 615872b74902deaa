"""The conformance runner: results of a checkout, and nothing left behind however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from conformance.case import FILE_MODES, Case, Command, Launch, Mode, Status
from conformance.cases.programs import beta_1_cases
from conformance.discover import discover
from conformance.execute import Executor
from conformance.runner import run
from conformance.sources import FileSource

RIGHT = '''
import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def cumsum(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    ones = nl.ndarray((128, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    for first in range(0, x.shape[0], 128):
        count = min(128, x.shape[0] - first)
        rows = slice(first, first + count)
        tile = nl.ndarray((count, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[rows, :])
        nisa.tensor_tensor_scan(
            dst=tile, data0=ones[0:count, :], data1=tile, initial=0.0, op0=nl.multiply, op1=nl.add
        )
        nisa.dma_copy(dst=out[rows, :], src=tile)
    return out
'''
WRONG = RIGHT.replace("op1=nl.add", "op1=nl.maximum")
BROKEN = "raise OSError"
SLEEPS = '''
import os
import pathlib
import subprocess
import sys
import time

started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(os.environ["TMPDIR"], "started").write_text(f"{os.getpid()} {started.pid}")
time.sleep(60)
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Writes a checkout with one kernel of the library, and gives temporary files a folder of their own."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def write(text: str) -> tuple[Path, Path]:
        module = tmp_path / "library/src/nkilib_src/nkilib/core/cumsum/cumsum.py"
        module.parent.mkdir(parents=True)
        for package in (module.parent, module.parent.parent, module.parent.parent.parent):
            (package / "__init__.py").touch()
        module.write_text(text, encoding="utf-8")
        return tmp_path / "library", temporary

    return write


@pytest.mark.parametrize(("text", "status"), [(RIGHT, Status.PASS), (WRONG, Status.FAIL), (BROKEN, Status.ERROR)])
def test_a_kernel_is_compared_with_its_reference(checkout, text, status) -> None:
    folder, temporary = checkout(text)
    cases = discover([folder])
    assert {case.label for case in cases} >= {"cumsum"}
    results = run(cases, [folder], only=frozenset({Mode.SIMULATE_TRN2}))
    assert [r.status for r in results] == [status]
    assert list(temporary.iterdir()) == []


def test_a_child_that_dies_is_a_result(checkout) -> None:
    folder, temporary = checkout("import os; os._exit(3)")
    (result,) = run(discover([folder]), [folder], only=frozenset({Mode.SIMULATE_TRN2}))
    assert (result.status, result.error) == (Status.CRASH, "exit code 3")
    assert list(temporary.iterdir()) == []


def test_the_limit_is_processor_time_also_within_one_call(checkout) -> None:
    folder, temporary = checkout("sum(range(10 ** 12))")
    started = os.times()
    (result,) = run(discover([folder]), [folder], timeout=1.0, only=frozenset({Mode.SIMULATE_TRN2}))
    assert (result.status, "1 s of processor time" in result.message) == (Status.TIMEOUT, True)
    assert os.times().children_user - started.children_user < 20
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(checkout, how) -> None:
    folder, temporary = checkout(SLEEPS)
    command = [sys.executable, "-m", "conformance", str(folder), "--mode", "sim trn2"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL) as process:
        try:
            children = _wait_for(temporary).split()
            process.send_signal(how)
            assert process.wait(timeout=30) != 0
        finally:
            process.kill()
    assert list(temporary.iterdir()) == []
    states = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(children)], capture_output=True, text=True).stdout
    assert all(state.startswith("Z") for state in states.split())  # none, but for what nobody has waited for


def _wait_for(temporary: Path) -> str:
    """What the child wrote once it runs."""
    for _ in range(600):
        for file in temporary.glob("conformance-*/started"):
            if text := file.read_text():
                return text
        time.sleep(0.1)
    raise AssertionError("the child never started")


def _command(folder: Path, text: str, *words: str, failure: str = "") -> Case:
    path = folder / "test_program.py"
    path.write_text(text, encoding="utf-8")
    words = words or ("nkilite", "run", str(path))
    return Case("suite", "program", FileSource(path), modes=FILE_MODES, command=Command(words, folder, failure=failure))


@pytest.mark.parametrize(
    ("text", "words", "failure", "status", "message"),
    [
        ("import os; print(os.environ['NKI_SIMULATOR'])", (), "0", Status.FAIL, "says '0'"),
        ("import no_such_module", (), "", Status.SKIP, "needs no_such_module"),
        ("from json import no_such_name", (), "", Status.SKIP, "another version of json"),
        ("raise ValueError('no')", (), "", Status.FAIL, "ValueError: no"),
        ("import neuronxcc.nki._private_kernels as k; k.mlp()", (), "", Status.SKIP, "part of the vendor's compiler"),
        ("def test_it(): pass", ("pytest", "-q", "test_program.py"), "", Status.PASS, ""),
        ("def test_it(): assert 1 == 2", ("pytest", "-q", "test_program.py"), "", Status.FAIL, "assert 1 == 2"),
    ],
)
def test_programs_of_a_checkout(tmp_path, text, words, failure, status, message) -> None:
    result = Executor(60.0).run(_command(tmp_path, text, *words, failure=failure), Mode.FILE)
    assert (result.status, message in result.message) == (status, True)


def test_the_limit_of_a_program_is_processor_time(tmp_path) -> None:
    busy = "import time; time.sleep(2.5)\nwhile WAIT: pass"
    late = Executor(2.0).run(_command(tmp_path, busy.replace("WAIT", "True")), Mode.FILE)
    assert (late.status, "2 s of processor time" in late.message) == (Status.TIMEOUT, True)
    assert Executor(2.0).run(_command(tmp_path, busy.replace("WAIT", "False")), Mode.FILE).status is Status.PASS


def test_functions_of_the_host_launch_kernels_simulated(tmp_path) -> None:
    path = tmp_path / "host.py"
    path.write_text("import os\n\ndef check():\n    assert os.environ['NKI_SIMULATOR'] == '1'\n", encoding="utf-8")
    case = Case("suite", "check", FileSource(path), Launch("check", host=True, checks_itself=True))
    assert Executor(60.0).run(case, Mode.SIMULATE_TRN2).status is Status.PASS
    assert Executor(60.0).run(case, Mode.COMPILED_TRN2).status is Status.ERROR


def test_scripts_of_packages_that_import_what_is_missing(tmp_path) -> None:
    package = tmp_path / "ported" / "kernels"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("import no_such_framework\n", encoding="utf-8")
    (package / "__init__.py").write_text("scale = 2\n", encoding="utf-8")
    script = package / "script.py"
    script.write_text("from ported.kernels import scale\nprint('doubled' * (scale == 2))\n", encoding="utf-8")
    command = Command(("conformance.alone", str(tmp_path), str(script)), tmp_path, failure="doubled")
    case = Case("suite", "script", FileSource(script), modes=FILE_MODES, command=command)
    assert Executor(60.0).run(case, Mode.FILE).message == "says 'doubled'"


def test_files_of_a_package_run_by_name(tmp_path) -> None:
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "size.py").write_text("SIZE = 4\n")
    (package / "kernels.py").write_text("import neuronxcc.nki\nfrom .size import SIZE\nassert SIZE == 4\n")
    cases = list(beta_1_cases("suite", tmp_path, [package / "kernels.py"], (package.parent,)))
    assert [Executor(60.0).run(case, Mode.FILE).status for case in cases] == [Status.PASS]
