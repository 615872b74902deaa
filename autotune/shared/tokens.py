"""The token of the gRPC proxy: its clients send it with every call, and the proxy answers no one else."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.storages._grpc import server as proxy

from autotune.shared.addresses import remember_secret

TOKEN_VARIABLE = "AUTOTUNE_TOKEN"
_HEADER = "authorization"
_THREADS = 10  # of a server, as optuna's has


def new_token() -> str:
    """A token nobody can guess."""
    return secrets.token_urlsafe(24)


class Client(GrpcStorageProxy):
    """Optuna's client, with a token."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._token = token
        remember_secret(token)
        super().__init__(host=host, port=port)

    def _setup(self) -> None:
        super()._setup()
        self._channel = grpc.intercept_channel(self._channel, _Sender(self._token))
        self._stub = type(self._stub)(self._channel)
        self._cache = type(self._cache)(self._stub)


def serve(storage: BaseStorage, host: str, port: int, token: str) -> None:
    """Answer clients that have the token, until the process ends."""
    server = grpc.server(ThreadPoolExecutor(_THREADS), interceptors=(_Door(token),))
    service = proxy.grpc_servicer.OptunaStorageProxyService(storage)  # type: ignore[attr-defined]
    proxy.api_pb2_grpc.add_StorageServiceServicer_to_server(service, server)  # type: ignore[attr-defined]
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    server.wait_for_termination()


class _Details(NamedTuple):
    """What gRPC calls grpc.ClientCallDetails, of which it has no public class with a constructor."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Sender(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # gRPC has no types
    def __init__(self, token: str) -> None:
        self._pair = (_HEADER, f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), self._pair]
        return continuation(_Details(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        ), request)


class _Door(grpc.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        said = next((v for k, v in details.invocation_metadata if k == _HEADER), "")
        said = said.encode() if isinstance(said, str) else said
        return continuation(details) if hmac.compare_digest(said, self._wanted) else _REFUSAL


def _refuse(_: Any, context: Any) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{TOKEN_VARIABLE} is not the token of this proxy")


_REFUSAL = grpc.unary_unary_rpc_method_handler(_refuse)
