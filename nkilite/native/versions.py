"""What decides, beside a program, which native code is made of it: nkilite itself and the libraries it uses."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import time

import ml_dtypes
import numpy as np

from nkilite.host import llvm

_IMPORTED = time.time_ns()
_MARGIN = 10**9  # nanoseconds that importing nkilite takes at most


@functools.cache
def versions() -> str | None:
    """The same text for two processes that make the same code of a program.

    None where nkilite's sources may have changed since this process imported them.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = hashlib.sha256()
    latest = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, "rb", buffering=0) as file:
                    latest = max(latest, os.fstat(file.fileno()).st_mtime_ns)
                    content = file.read()
                found.update(f"{path[len(root) + 1:]} {len(content)}\n".encode())
                found.update(content)
    if latest > _IMPORTED - _MARGIN:
        return None
    libraries = np.__version__, ml_dtypes.__version__, llvm.versions()
    return " ".join((found.hexdigest(), str(sys.implementation.cache_tag), *libraries))
