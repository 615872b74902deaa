"""From C++ to a shared object: the system's compiler, what it says, and the disk cache.

The cache is keyed by what the compiler reads, which it says itself: the preprocessed source, with every header, its
own name and version, and its flags.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nkilite import knobs
from nkilite.errors import CompilationFailed, CompilerMissing
from nkilite.location import Location
from nkilite.native.cache import FORMAT, OPERATORS, store

INCLUDE = Path(__file__).with_name("include")
_CHOICES = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread")
_FAST, _DEBUG = ("-O2",), ("-O1", "-g", "-DNKILITE_DEBUG")
_ERROR = re.compile(r"^(.+?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", re.MULTILINE)
_SHOWN = 30  # lines of what the compiler says
_DIGEST_BYTES = 16

_built: dict[str, bytes] = {}  # by this process


def compiler() -> list[str]:
    """The command of the C++ compiler: CXX, or the first of those that systems have.

    Raises:
        CompilerMissing: there is none.
    """
    named = knobs.cxx()
    if named.strip():
        command = shlex.split(named)
        if shutil.which(command[0]) is None:
            raise CompilerMissing(found=f"CXX={named!r} is no command")
        return command
    found = next((path for name in _CHOICES if (path := shutil.which(name))), None)
    if found is None:
        raise CompilerMissing(found=f"none of {', '.join(_CHOICES)} is on the PATH")
    return [found]


def build(texts: Sequence[str], file: str, debug: bool = False, flags: Sequence[str] = ()) -> tuple[str, bytes]:
    """A key that stands for everything that was compiled, and the shared object of some sources.

    Args:
        texts: they include the user's files.
        file: the user's, for messages.

    Raises:
        CompilerMissing: there is no compiler.
        CompilationFailed: it refuses the source; the error is at the user's line.
    """
    command = [*compiler(), *_FLAGS, *(_DEBUG if debug else _FAST), f"-I{INCLUDE}", *flags]
    with tempfile.TemporaryDirectory(prefix="nkilite-") as folder:
        sources, target = [], Path(folder, "operator.so")
        for number, text in enumerate(texts):
            sources.append(str(Path(folder, f"operator{number}.cpp")))
            Path(sources[-1]).write_text(text)
        read = _run([*command, "-E", "-P", *sources], folder, file)
        version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False).stdout
        found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for part in (str(FORMAT), version, *command, read):
            found.update(f"{len(part)} {part}".encode())
        key, disk = found.hexdigest(), store()
        if key not in _built:
            kept = None if disk is None else disk.get(OPERATORS, Path(file).stem, key)
            if kept is None:
                _run([*command, *sources, "-o", str(target)], folder, file)
                kept = target.read_bytes()
                if disk is not None:
                    disk.put(OPERATORS, Path(file).stem, key, kept)
            _built[key] = kept
    return key, _built[key]


def load(content: bytes) -> ctypes.CDLL:
    """A shared object, loaded into the process."""
    with tempfile.TemporaryDirectory(prefix="nkilite-") as folder:
        path = Path(folder, "operator.so")
        path.write_bytes(content)
        return ctypes.CDLL(str(path))  # it stays when its file goes


def _run(command: Sequence[str], folder: str, file: str) -> str:
    """What a compiler that runs in peace writes; `folder` has the sources that are ours."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.replace(folder, "<nkilite>").splitlines()
    errors = [Location(e[1], int(e[2])) for e in _ERROR.finditer(done.stderr)]
    own = [e for e in errors if not e.file.startswith((folder, f"{INCLUDE}{os.sep}"))]
    said = _ERROR.search(done.stderr)
    output = "\n".join(f"     {line}" for line in lines[:_SHOWN])
    raise CompilationFailed(
        compiler=Path(command[0]).name, file=file, problem=said[3] if said else f"it ended with {done.returncode}",
        output=output, location=own[0] if own else Location(file, 0),
    )
