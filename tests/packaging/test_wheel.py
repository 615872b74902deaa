"""What pip installs is complete: the gallery, types, the licence, the report, and commands that work anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the build backend is not installed")
ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel, and what this one has of other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    others = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    (packages / "others.pth").write_text("\n".join(others))
    return folder / "bin" / "python"


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in ("nkilite/py.typed", "autotune/py.typed", "nkilite/profiling/report.html",
                   "nkilite/drawing/drawing.html", "nkilite/docs/index.md", "nkilite/docs/launching.md",
                   "nkilite/gallery/kernels/matmul.py", "nkilite/gallery/kernels/py.typed"):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "kernels/", "benchmarks/", "conformance/")) for name in names)


def test_the_readme_has_no_links_that_lead_nowhere(wheel: Path, python: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert "Description-Content-Type: text/markdown" in metadata
    links = re.findall(r"\]\(([^)]*)\)", metadata)
    assert all(link.startswith("https://") for link in links), links
    pages = set(re.findall(r"`nkilite docs ([\w-]+)`", metadata))
    assert {"launching", "compatibility", "first-kernel"} <= pages
    listed = run(python, "-m", "nkilite", "docs", cwd=tmp_path)
    assert all(f" {page} " in listed for page in pages)
    shown = run(python, "-m", "nkilite", "docs", "docs/first-kernel.ipynb", cwd=tmp_path)
    assert "```python" in shown


def test_gallery_of_an_installed_package(python: Path, tmp_path: Path) -> None:
    shown = run(python, "-m", "nkilite", "gallery", "list", cwd=tmp_path)
    assert "flash_attention" in shown
    run(python, "-m", "nkilite", "gallery", "copy", cwd=tmp_path)
    compiled = run(python, "-m", "nkilite", "compile", "kernels/softmax.py:softmax", "128x64:float32", cwd=tmp_path)
    assert "softmax" in compiled


def test_types_are_marked() -> None:
    assert all((ROOT / package / "py.typed").exists() for package in ("nkilite", "autotune", "kernels"))
