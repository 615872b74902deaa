"""The child process: runs a list of (case, mode) pairs and reports each as one JSON line.

Standard input carries the request; standard output carries the reports, so whatever kernels print goes to
standard error instead.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from .case import Mode
from .discover import discover
from .execute import Executor
from .limits import allow


def main() -> None:
    request = json.load(sys.stdin)
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore", DeprecationWarning)
    from nkilite import compat  # noqa: PLC0415  when what it prints no longer goes into the channel

    compat.install(torch_xla=True)
    cases = {case.id: case for case in discover([Path(folder) for folder in request["folders"]])}
    executor = Executor(request["timeout"])
    for case_id, mode in request["work"]:
        allow(request["timeout"])
        _say(channel, {"start": [case_id, mode]})
        _say(channel, {"result": executor.run(cases[case_id], Mode(mode)).to_json()})


def _say(channel: TextIO, record: dict[str, Any]) -> None:
    channel.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
