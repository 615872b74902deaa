"""The command that runs nki-library's suite: what it keeps of a run, goes on with and shows. The harness is our own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conformance.nki_library import checkout, outcomes, processes, table

ROOT = Path(__file__).parents[2]

# As much of the library's harness as the plugin touches: its option names, its modules, one simulator.
HARNESS = {
    "test/__init__.py": "",
    "test/pytest.ini": "[pytest]\nmarkers =\n    fast: x\n    coverage_parametrize: x\n",
    "test/conftest.py": """
        def pytest_addoption(parser):
            for name in ("--test-mode", "--platform-target", "--output-directory"):
                parser.addoption(name)
            parser.addoption("--force-local-cleanup", action="store_true")

        def pytest_generate_tests(metafunc):
            assert metafunc.definition.get_closest_marker("coverage_parametrize") is None
    """,
    "test/utils/__init__.py": "",
    "test/utils/simulation_setup.py": """
        import nki_cpu_simulator.nki.isa as _isa
        import nki_cpu_simulator.nki.language.dtypes as _dtypes
        from nki_cpu_simulator import nki as _nki

        def simulate_kernel(kernel, inputs, cores):
            return [_nki.cpu_simulate(kernel)[cores](**inputs)]
    """,
    "test/utils/test_orchestrator.py": """
        class Orchestrator:
            def _run_simulator_inference(self, kernel):
                from test.utils import simulation_setup
                return simulation_setup.simulate_kernel(kernel.function, kernel.inputs, 2)
    """,
}
TESTS = """
    import os
    import time
    from types import SimpleNamespace

    import nki
    import nki.isa as nisa
    import nki.language as nl
    import numpy as np
    import pytest
    import neuron_dtypes
    from neuronxcc.starfish.support.dtype import static_cast

    @nki.jit
    def copy(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(dst=out[nl.program_id(0):], src=x[nl.program_id(0):])
        return out

    @nki.jit
    def never_ends(x):
        while True:
            try:
                time.perf_counter()
            except Exception:
                pass

    def launched(x, function=copy):
        from test.utils.test_orchestrator import Orchestrator
        ranks = SimpleNamespace(collective_ranks=1)
        kernel = SimpleNamespace(function=function, inputs={"x": x}, inference_args=ranks)
        return Orchestrator()._run_simulator_inference(kernel)[0]

    @pytest.mark.fast
    @pytest.mark.parametrize("columns", [1, 2, 3])
    def test_copies(columns):
        x = np.arange(128 * columns, dtype=np.float32).reshape(128, columns)
        assert np.array_equal(launched(x), x)

    @pytest.mark.fast
    def test_packed():
        words = static_cast(np.ones((128, 4), np.float32), "float8_e4m3fn_x4")
        assert (neuron_dtypes.static_cast(launched(words), np.float32) == 1).all()

    @pytest.mark.fast
    def test_never_ends():
        launched(np.zeros((128, 1), np.float32), never_ends)

    @pytest.mark.fast
    def test_kills_the_process():
        os._exit(3)

    @pytest.mark.fast
    def test_is_skipped():
        pytest.skip("too large")

    @pytest.mark.fast
    @pytest.mark.skip(reason="slow")
    def test_is_not_to_run():
        os._exit(5)

    @pytest.mark.fast
    def test_wrong():
        with open(os.environ["RAN"], "a") as ran:
            ran.write("wrong ")
        assert False, "not equal"

    @pytest.mark.coverage_parametrize(columns=[1])
    def test_not_fast(columns):
        os._exit(4)
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A checkout, and the settings of a run that keeps its outcomes beside it."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    for name, text in {**HARNESS, str(checkout.TESTS / "core/copy/test_copy.py"): TESTS}.items():
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    return processes.Settings(tmp_path / "library", tmp_path / "kept", "trn3", False, 2.0, 8.0)


def test_outcomes_are_kept_and_runs_go_on(library, tmp_path):
    (file,) = checkout.files(library.checkout, ["core"])
    shown = []
    processes.run([file], library, 1, shown.append)
    (found,) = shown
    assert {test.partition("::")[2]: t.outcome for test, t in found.tests.items()} == {
        "test_copies[1]": "passed", "test_copies[2]": "passed", "test_copies[3]": "passed", "test_packed": "passed",
        "test_never_ends": "failed", "test_kills_the_process": "failed", "test_is_skipped": "skipped",
        "test_is_not_to_run": "skipped",
        "test_wrong": "failed",
    }
    why = {test.partition("::")[2]: t.why for test, t in found.tests.items()}
    assert why["test_never_ends"].startswith("TimeLimit")
    took = {test.partition("::")[2]: (t.seconds, t.kernel) for test, t in found.tests.items()}
    assert took["test_never_ends"][0] >= took["test_never_ends"][1] > 1.5
    assert took["test_copies[1]"][1] > 0 == took["test_wrong"][1]
    assert why["test_kills_the_process"] == "Crash: the process ended with code 3"
    assert all(t.races for test, t in found.tests.items() if "copies" in test)  # both cores write row 1 and on
    processes.run([file], library, 1, shown.append)  # everything has an outcome
    assert (tmp_path / "ran").read_text() == "wrong "
    outcomes.forget(library.results, file, failed_only=True)
    assert outcomes.read(library.results, file).count(outcomes.PASSED) == 4
    assert len(outcomes.read(library.results, file).left) == 3
    text = table.markdown({"trn3 simulate": {file: found}})
    assert "| core/copy | 4, 3 failed, 2 skipped |" in text
    assert "| processor time | " in text
    assert "`test_wrong` (1): AssertionError: not equal" in text


def test_a_file_that_does_not_import(library):
    (library.checkout / checkout.TESTS / "core/copy/test_copy.py").write_text("import absent\ndef test_it(): pass\n")
    shown = []
    processes.run(["core/copy/test_copy.py"], library, 1, shown.append)
    assert "absent" in shown[0].broken
    assert "not collected" in table.markdown({"x": {"core/copy/test_copy.py": shown[0]}})


def test_what_cannot_be_run_says_so(tmp_path):
    with pytest.raises(checkout.Unprepared, match="git fetch"):
        checkout.fetch(tmp_path / "new", str(tmp_path / "nowhere"), "main")
    (tmp_path / ".git").mkdir()
    with pytest.raises(checkout.Unprepared, match="no checkout of nki-library"):
        checkout.fetch(tmp_path)


def test_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "nki-library", "--work", "absent", "--table"], cwd=ROOT,
        capture_output=True, text=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("| tests |")
