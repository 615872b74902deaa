"""What is kept from others, and what is not taken from them: passwords, tokens, constraints, kernels, processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import servers
import slow_subject

from autotune.database import Database
from autotune.errors import InvalidSpace, InvalidStorage, StudyMismatch, UntrustedKernel
from autotune.expressions import Expression
from autotune.shared.addresses import hidden, remember, shown
from autotune.shared.claims import SharedStudy
from autotune.shared.coordinator import Coordinator
from autotune.shared.specification import Specification
from autotune.shared.storage import open_storage, serve
from autotune.shared.worker import work

KERNEL = f"{slow_subject.__file__}:slow"

# --- passwords ------------------------------------------------------------------------------------------------

BETWEEN = ("", "/", "@", ":", "?", "#", " ", "%40", "//@:/?#", "ü", "'\"", "[]", "\\", "=&x=", "\n@", "@host:5432/")


@pytest.mark.parametrize("between", BETWEEN)
def test_passwords_never_show(between: str) -> None:
    password = f"left{between}right"
    url = f"other://me:{password}@host/name"
    with pytest.raises(InvalidStorage) as caught:
        open_storage(url)
    for text in (str(caught.value), shown(url), hidden(f"cannot open {url}: no"), hidden(f"me with {password}!")):
        assert "left" not in text
        assert "right" not in text


def test_what_is_no_secret_shows() -> None:
    for url in ("postgresql://host:5432/db", "journal:///a/b.log", "grpc://[::1]:13000", "sqlite:////x.db", "s.log"):
        assert shown(url) == url
    assert shown("mysql+pymysql://me:a/b@c@host/db?ssl_key=k&password=p@q") == "mysql+pymysql://..."
    assert shown("postgresql://me:pw@host/db?password=p") == "postgresql://host/db?..."
    assert shown("host=h password=p") == shown("://x:y@z") == "..."


def test_secrets_in_the_words_of_drivers() -> None:
    remember("postgresql://me:h%40ra/ss@host/db?passfile=/etc/hush&connect_timeout=10")
    said = hidden('invalid port "ra/ss@host" (h@ra/ss), passfile=/etc/hush, password=other, 10 s')
    assert not any(p in said for p in ("ra/ss", "h@ra", "hush", "other"))
    assert "10 s" in said


def test_passwords_of_commands_are_not_shown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = "postgresql://me:hu/sh@127.0.0.1:1/db?password=silent"
    for command in (["worker", "--kernel", KERNEL], ["proxy"], ["worker", "--help"]):
        environment = {**os.environ, "AUTOTUNE_STORAGE": url}
        found = subprocess.run([sys.executable, "-m", "autotune", *command], env=environment, capture_output=True,
                               text=True, cwd=tmp_path)
        assert "hu/sh" not in found.stdout + found.stderr
        assert "silent" not in found.stdout + found.stderr
    found = subprocess.run([sys.executable, "-m", "autotune", url], capture_output=True, text=True)
    assert found.returncode == 2
    assert "hu/sh" not in found.stdout + found.stderr
    with pytest.raises(InvalidStorage) as caught:
        serve("journal://me:hush@host.log", "localhost", 1)
    assert "hush" not in str(caught.value)


# --- storages -------------------------------------------------------------------------------------------------


def test_constraints_are_not_run() -> None:
    values = {"A": 4, "B": 2, "M": "fast"}
    for text in ("A * B <= 8", "A % B == 0 and not A < B", "max(A, B) == 4 if M == 'fast' else A > 9", "1 < B < A",
                 "M in ('fast', 'slow')", "A << 1 == 8 or A / 0 > 1", "len(M) == 4", "abs(-A) ** 2 == 16"):
        assert Expression(text)(values) is bool(eval(text, {}, values)) is True
    assert Expression("A * B <= 32 or len(M) > C").names == {"A", "B", "M", "C"}
    for text in ("__import__('os').system('true')", "A.__class__", "[].append(1)", "(lambda: A)()", "A[0]", "open('x')",
                 "[a for a in (1, 2)]", "f'{A}'", "max(*(1, 2))", "A <", "A := 3", "b'x'", "(" * 500 + "A" + ")" * 500):
        with pytest.raises(InvalidSpace, match="not an expression"):
            Expression(text)
    for text in ("9 ** 9 ** 9 > A", "A << 10000 > 1", "M * 9999999 == M", "A / 0 > 1", "M < A"):
        with pytest.raises(InvalidSpace, match="cannot be told"):
            Expression(text)(values)


def test_a_worker_runs_what_it_was_told_to_alone(tmp_path: Path) -> None:
    url, ran = f"journal://{tmp_path}/study.log", tmp_path / "ran"
    mine = Specification(KERNEL, ("16x8",), trials=2)
    coordinator = Coordinator(url, mine, Database(None), "mine", 0, False)
    coordinator.open()
    storage = open_storage(url)
    shared = SharedStudy.join(storage, "mine")
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(ran)!r}, 'w')\nimport slow_subject\nslow = slow_subject.slow\n")

    def stored(**changes) -> None:
        storage.set_study_user_attr(shared.id, "specification", {**mine.to_json(), **changes})

    stored(kernel=f"{evil}:other")
    with pytest.raises(UntrustedKernel, match=r"it may run .*slow_subject"):
        work(url, [KERNEL])
    stored(trials="many")
    with pytest.raises(StudyMismatch, match="trials is 'many'"):
        work(url, [KERNEL])
    stored(constraints=[f"open({str(ran)!r}, 'w')"])
    with pytest.raises(InvalidSpace, match="not an expression"):
        work(url, [KERNEL])
    stored(kernel=f"{evil}:slow")  # the same name elsewhere: the one that was named here is taken
    study, tried = work(url, [KERNEL])
    assert study == "mine"
    assert tried in (2, 3, 4)  # PASSES=11, with either SHIFT, is rejected where this process's seed comes to it
    assert not ran.exists()


def test_the_proxy_wants_its_token(tmp_path: Path, monkeypatch) -> None:
    with servers.grpc_proxy(f"sqlite:///{tmp_path}/study.db") as url:
        assert open_storage(url).get_all_studies() == []
        for token in ("another", ""):
            monkeypatch.setenv("AUTOTUNE_TOKEN", token)
            with pytest.raises(InvalidStorage, match="set AUTOTUNE_TOKEN"):
                open_storage(url)


# --- processes ------------------------------------------------------------------------------------------------

PROGRAM = """
    import os, numpy as np, autotune, nkilite as nki, nkilite.isa as nisa, nkilite.language as nl

    with open("starts", "a") as file:
        file.write("x")
    assert os.path.getsize("starts") < 5

    @nki.jit
    def kernel(x, COLUMNS=128):
        {body}
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.load(x))
        return out

    {search}
"""
SPECIFICATION = 'autotune.Specification("program.py:kernel", ("8x8",), parameters=["COLUMNS=1,2"])'
SEARCHES = {
    "search": 'autotune.search(kernel, (np.ones((8, 8), np.float32),), objective="cpu", space={"COLUMNS": [1, 2]})',
    "distribute": f"autotune.distribute({SPECIFICATION})",
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
def test_a_program_that_searches_when_it_is_imported(search: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM).format(body="pass", search=search))
    found = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 1
    assert "__name__" in found.stderr
    assert len((tmp_path / "starts").read_text()) <= 3


def test_measuring_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    body = "open('at', 'w').write(str(os.getpid())); nl.while_loop(nisa.register_alloc(1), lambda c: c)"
    guarded = f'if __name__ == "__main__": {SEARCHES["search"]}'
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM).format(body=body, search=guarded))
    process = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        child = _until(lambda: int((tmp_path / "at").read_text() or 0) or None)
        assert child != process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        _until(lambda: None if Path(f"/proc/{child}").exists() else True)
    finally:
        process.kill()


def _until(found, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = found()
        except (OSError, ValueError):
            value = None
        if value is not None:
            return value
        time.sleep(0.1)
    raise AssertionError("not within a minute")
