"""Storages for tests: PostgreSQL from the distribution's packages, and the gRPC proxy; skipped where absent."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

UNPRIVILEGED = "postgres", "nobody"  # PostgreSQL does not run as root

SECONDS_TO_START = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a new database on a server of its own."""
    if not any(importlib.util.find_spec(driver) for driver in ("psycopg", "psycopg2")):
        pytest.skip("no driver of PostgreSQL is installed")
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or ([Path(on_path)] if on_path else [])
    if not found:
        pytest.skip("PostgreSQL is not installed")
    binaries, port = found[-1].parent, free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short: it holds a socket
        identity: dict = {}
        if os.geteuid() == 0:
            user = next((u for u in map(_user, UNPRIVILEGED) if u is not None), None)
            if user is None:
                pytest.skip("PostgreSQL does not run as root, and there is no other user")
            os.chown(folder, user.pw_uid, user.pw_gid)
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = f"{folder}/data"

        def run(program: str, *arguments: str) -> None:
            with Path(folder, "said").open("ab") as said:
                subprocess.run([binaries / program, "-D", data, *arguments], check=True, stdout=said, stderr=said,
                               cwd=folder, timeout=60, **identity)

        run("initdb", "--auth=trust", "--username=tuner", "--no-sync", "--no-locale", "--encoding=UTF8")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-w", "-o", options, "-l", f"{folder}/log", "start")
        try:
            yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def grpc_proxy(url: str) -> Iterator[str]:
    """The URL of a proxy before a storage, run by the command."""
    pytest.importorskip("grpc")
    port = free_port()
    os.environ["AUTOTUNE_TOKEN"] = "a token of tests"
    process = subprocess.Popen([sys.executable, "-m", "autotune", "proxy", "--storage", url, "--port", str(port)])
    try:
        until = time.monotonic() + SECONDS_TO_START
        while not _answers(port):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        yield f"grpc://localhost:{port}"
    finally:
        del os.environ["AUTOTUNE_TOKEN"]
        process.terminate()
        process.wait()
