"""Where shared studies live: optuna's storages by URL, and the gRPC server in front of one.

| URL | storage |
|---|---|
| ``journal:///path/study.log``, or a path ending in ``.log`` | JournalFile: processes of a host, shared file systems |
| ``postgresql://``, ``mysql://``, ``sqlite:///path`` | RDB |
| ``grpc://host:port`` | a server started by ``autotune proxy`` |
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from autotune.errors import InvalidStorage, MissingExtra, StorageLost
from autotune.shared.addresses import hidden, remember, shown
from nkilite.later import later

if TYPE_CHECKING:  # what journals do without
    import grpc
    from sqlalchemy import exc as sqlalchemy

    from autotune.shared import tokens
else:
    grpc, sqlalchemy, tokens = later("grpc"), later("sqlalchemy.exc"), later("autotune.shared.tokens")

GRPC_PORT = 13000
GRPC_SECONDS = 10.0  # within which a server has to answer
SQLITE_SECONDS = 60.0  # writers wait for each other
_DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("pymysql", "MySQLdb")}
_LIBRARIES = {"grpc", "sqlalchemy"}  # whose exceptions tell that a storage is out of reach


class FileLock(JournalFileOpenLock):
    """The journal's lock, held as the system's own, which ends with a holder that is killed; Linux has it on NFS too.

    Optuna's are files that others break after half a minute.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._journal, self._path = path, path + ".lock"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        if not os.path.exists(self._journal):  # to write would make another, without what was in this one
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._journal)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Reached:
    """A storage of optuna's whose failures are ours."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                if _tells_of_loss(error):
                    raise StorageLost(problem=_problem(error)) from None  # drivers may name passwords
                raise

        return call


def reached(storage: BaseStorage) -> BaseStorage:
    """The storage, with every method raising StorageLost where the storage or the study in it is gone."""
    return storage if isinstance(storage, _Reached) else cast(BaseStorage, _Reached(storage))


def _tells_of_loss(error: Exception) -> bool:
    """Files, connections, servers; and a study or trial that was there before."""
    if isinstance(error, (OSError, KeyError, optuna.exceptions.StorageInternalError)):
        return True
    return any(kind.__module__.partition(".")[0] in _LIBRARIES for kind in type(error).__mro__)


def _problem(error: Exception) -> str:
    details = getattr(error, "details", None)  # of gRPC
    text = str(details() if callable(details) else error.__cause__ or error)
    return hidden(f"{type(error).__name__}: {text.splitlines()[0] if text else 'it is gone'}")


def open_storage(url: str) -> BaseStorage:
    """The storage a URL names, made where a journal or a database of SQLite does not exist yet.

    Raises:
        InvalidStorage: the URL is none of the kinds above, or nothing answers there.
        MissingExtra: its driver is not installed.
    """
    quiet()
    remember(url)
    scheme = url.partition("://")[0] if "://" in url else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            if scheme == "journal" or (not scheme and url.endswith(".log")):
                return _journal(url.removeprefix("journal://"))
            if scheme == "grpc":
                return _proxy(url)
            if scheme.partition("+")[0] in ("postgresql", "mysql", "sqlite"):
                return _database(url)
        except ImportError as error:
            raise MissingExtra(extra="storage", what=shown(url), problem=hidden(str(error))) from None
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidStorage):
                raise
            raise InvalidStorage(url=shown(url), problem=hidden(str(error))) from None
    raise InvalidStorage(url=shown(url), problem="of no known kind")


def _journal(path: str) -> BaseStorage:
    if not path:
        raise ValueError("there is no path")
    file = Path(path).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(file), FileLock(str(file))))


def _database(url: str) -> BaseStorage:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": SQLITE_SECONDS}
    try:
        return get_storage(RDBStorage(_with_driver(url), engine_kwargs=options))
    except (sqlalchemy.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise ValueError(str(error.__cause__ or error).splitlines()[0]) from None


def _with_driver(url: str) -> str:
    """What a plain postgresql:// means depends on the version of SQLAlchemy; take what the extra installs, if it is."""
    scheme, _, rest = url.partition("://")
    driver = next((d for d in _DRIVERS.get(scheme, ()) if find_spec(d) is not None), None)
    return url if driver is None else f"{scheme}+{driver.lower()}://{rest}"


def _proxy(url: str) -> BaseStorage:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("there is no host")
    if find_spec("grpc") is None:
        raise ModuleNotFoundError("grpcio is not installed")
    storage = tokens.Client(parts.hostname, parts.port or GRPC_PORT, os.environ.get(tokens.TOKEN_VARIABLE, ""))
    storage.wait_server_ready(GRPC_SECONDS)
    try:
        storage.get_all_studies()
    except grpc.RpcError as error:
        code = getattr(error, "code", None)
        if callable(code) and code() is grpc.StatusCode.UNAUTHENTICATED:
            raise ValueError(f"set {tokens.TOKEN_VARIABLE} to the token that autotune proxy has") from None
        raise ValueError(_problem(error)) from None
    return storage


def serve(url: str, host: str, port: int, tell: Callable[[str], Any] = lambda token: None) -> None:
    """Answer gRPC clients from a storage until the process ends; those that have the token.

    It is that of the environment, or a new one, which `tell` is called with.

    Raises:
        InvalidStorage: a journal, which cannot be served, or nothing answers there.
        MissingExtra: grpcio is not installed.
    """
    storage = open_storage(url)
    if isinstance(storage, JournalStorage):
        raise InvalidStorage(url=shown(url), problem="optuna's proxy serves databases, not journals")
    if find_spec("grpc") is None:
        raise MissingExtra(extra="storage", what="the proxy", problem="grpcio is not installed")
    token = os.environ.get(tokens.TOKEN_VARIABLE)
    if not token:
        token = tokens.new_token()
        tell(token)
    tokens.serve(storage, host, port, token)


def quiet() -> None:
    """Keep optuna from narrating what it does to studies."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
