"""The HTML report in a real headless browser, and the command that writes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nkilite as nki
from kernels.matmul import matmul, matmul_tiled
from nkilite.__main__ import app
from nkilite.profiling.html import write_page
from nkilite.profiling.result import Profile

BROWSER = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")


@pytest.fixture(scope="module")
def profile() -> Profile:
    a = np.zeros((512, 512), np.float32)
    return nki.profile(matmul_tiled, a, a, target="trn2")


def dom(path: Path, fragment: str = "") -> str:
    """The page's document after its script ran; fails on a script error."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000",
         "--enable-logging=stderr", f"--user-data-dir={path.parent}/browser", "--dump-dom", path.as_uri() + fragment],
        capture_output=True, text=True, timeout=120, check=True,
    )
    assert "Uncaught" not in done.stderr, done.stderr
    return done.stdout


def text(html: str, id: str) -> str:
    match = re.search(rf'id="{id}"[^>]*>(.*?)</(?:div|span|table|h1)>\s*(?:<|$)', html, re.S)
    assert match, id
    return re.sub(r"<[^>]+>", " ", match[1])


@in_browser
def test_the_page_shows_the_profile(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(profile, path)
    html = dom(path)
    assert text(html, "title") == "matmul_tiled on trn2"
    assert f"{len(profile.workload)} instructions" in text(html, "view")
    assert "modelled" in text(html, "subtitle")
    assert "nisa.nc_matmul" in text(html, "lines")
    assert "input reloaded" in html
    assert "% of the roof" in html


@in_browser
def test_zooming_ends_at_a_single_instruction_with_its_line(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(profile, path)
    line = profile.timeline

    def alone(i: int) -> bool:
        """Whether no other instruction holds a queue in the middle of this one."""
        middle = (line.start[i] + line.end[i]) / 2
        return int(((line.start <= middle + 1) & (middle - 1 <= line.end)).sum()) == 1

    product = next(i for i in range(len(profile.workload)) if profile.opcode(i) == "nc_matmul" and alone(i))
    middle = (line.start[product] + line.end[product]) / 2000
    html = dom(path, f"#from={middle - 0.0001}&to={middle + 0.0001}")
    assert re.search(r"\b1 instruction$", text(html, "view").strip())
    assert f"nc_matmul #{product}" in html
    assert f"matmul.py:{profile.location(product).line}" in html
    assert "waited for: dma_copy" in html


@in_browser
def test_a_search_finds_instructions_and_shows_what_they_need(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(profile, path)
    products = [i for i in range(len(profile.workload)) if profile.opcode(i) == "nc_matmul"]
    html = dom(path, "#search=NC_matmul")
    assert text(html, "found").strip() == f"1 of {len(products)}"
    assert f"nc_matmul #{products[0]}" in text(html, "picked")
    edges = profile.workload.edges
    needs, feeds = sum(edges.consumer == products[0]), sum(edges.producer == products[0])
    links = re.sub(r"<[^>]+>", " ", html.partition('id="links"')[2].partition("</div>")[0])
    assert f"needs {needs}:" in links
    assert f"needed by {feeds}:" in links
    assert text(dom(path, "#search=%233"), "found").strip() == "1 of 1"
    assert text(dom(path, "#search=no+such"), "found").strip() == "nothing"


@in_browser
def test_several_profiles_are_on_one_page(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    a = np.zeros((512, 512), np.float32)
    other = nki.profile(matmul_tiled, a, a, target="trn1")
    write_page([profile, other], path)
    assert text(dom(path), "title") == "matmul_tiled on trn2"
    html = dom(path, "#profile=1")
    assert text(html, "title") == "matmul_tiled on trn1"
    table = text(html, "pages")
    assert "matmul_tiled on trn1" in table
    assert "matmul_tiled on trn2" in table


@in_browser
def test_a_narrow_screen_shows_all_of_it(profile: Profile, tmp_path: Path) -> None:
    path, outer = tmp_path / "report.html", tmp_path / "narrow.html"
    write_page([profile, profile], path)
    outer.write_text(
        f'<p id="wide"></p><iframe style="width: 390px; height: 800px; border: 0" srcdoc="{escape(path.read_text())}" '
        'onload="const page = this.contentDocument.documentElement, over = page.scrollWidth - page.clientWidth; '
        "document.getElementById('wide').textContent = page.clientWidth + ' ' + over\"></iframe>"
    )
    assert re.search(r'id="wide">3\d\d 0<', dom(outer))  # all but a scroll bar, and nothing beyond it


def test_the_page_is_self_contained(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(profile, path)
    html = path.read_text()
    outside = set(re.findall(r"https?://[^\s\"']+", html)) - {"http://www.w3.org/2000/svg"}
    assert not outside
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", html)
    assert "/*DATA*/" not in html


def test_the_command_compares_and_writes(tmp_path: Path) -> None:
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    done = CliRunner().invoke(app, [
        "profile", "kernels.matmul:matmul_tiled", "kernels.matmul:matmul", "--shapes", "512x512:bf16,512x512:bf16",
        "--target", "trn1,trn2", "--html", str(page), "--trace", str(trace), "--lines", "2",
    ])
    assert done.exit_code == 0, done.output
    written = sorted(p.name for p in tmp_path.iterdir())
    traces = [f"trace-{kernel}-{target}.json" for kernel in ("matmul", "matmul_tiled") for target in ("trn1", "trn2")]
    assert written == ["page.html", *traces]
    assert "modelled" in done.output
    assert re.search(r"latency .*-\d+\.\d%", done.output)


def test_the_command_refuses_an_unknown_order() -> None:
    done = CliRunner().invoke(app, ["profile", "kernels.matmul:matmul", "--order", "random"])
    assert done.exit_code == 2
    assert "compiler" in done.output


def test_a_large_matmul_page_stays_small(tmp_path: Path) -> None:
    a = np.zeros((1024, 1024), np.float32)
    path = tmp_path / "report.html"
    write_page(nki.profile(matmul, a, a, target="trn3"), path)
    assert path.stat().st_size < 200_000
