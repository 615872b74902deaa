"""What command lines take, and when they refuse: versions, completion, dtypes, samplers, extras, named shapes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import autotune.plots
from autotune.cli.command import main as tune
from autotune.cli.present import format_arguments
from autotune.context import Context, describe_arguments
from nkilite.__main__ import main
from nkilite.cli.specs import UnknownDtype, dtype_named, parse_arguments

SOFTMAX = f"{Path(__file__).parents[2] / 'kernels' / 'softmax.py'}:softmax"


def run(monkeypatch: pytest.MonkeyPatch, command, *arguments: str) -> str:
    """The message that a command ends with."""
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as caught:
        command()
    return str(caught.value)


@pytest.mark.parametrize("command", [main, tune])
def test_version_and_completion(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command) -> None:
    for option, shown in (("--version", "0.1.0"), ("--help", "--install-completion")):
        monkeypatch.setattr(sys, "argv", ["program", option])
        command()
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "name"),
    [("f32", "float32"), ("FP32", "float32"), ("half", "float16"), ("bf16", "bfloat16"), ("i32", "int32"),
     ("fp8_e4m3", "float8_e4m3"), ("torch.bfloat16", "bfloat16"), ("uint8", "uint8")],
)
def test_spellings_of_dtypes(text: str, name: str) -> None:
    assert dtype_named(text) == name


def test_unknown_dtypes_name_the_known() -> None:
    with pytest.raises(UnknownDtype, match=r"'f33' is not a dtype; there are bool, .*bfloat16"):
        dtype_named("f33")


def test_no_line_of_another_library_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    message = run(monkeypatch, main, "profile", SOFTMAX, "--shapes", "128x64", "--target", "trn0")
    assert message.startswith("UnknownTarget") and "\n  at " not in message


def test_searches_refuse_before_they_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(autotune.plots, "find_spec", lambda name: None)
    common = ("run", SOFTMAX, "--shapes", "128x64")
    assert run(monkeypatch, tune, *common, "--sampler", "best").startswith("UnknownSampler")
    assert run(monkeypatch, tune, *common, "--plots", "pictures").startswith("MissingLibrary")
    assert not list(tmp_path.iterdir())


def test_shapes_that_are_shown_can_be_pasted() -> None:
    given = {"x": np.zeros((128, 64), np.float32), "causal": True, "mode": "fast", "scale": 0.5}
    context = Context("kernel", describe_arguments(given), objective="trn2", target="trn2", cpu="", nkilite="")
    shown = format_arguments(context)
    assert shown == "x=128x64:float32 causal=True mode=fast scale=0.5"
    _, again = parse_arguments(shown.split())
    assert describe_arguments(again) == describe_arguments(given)
