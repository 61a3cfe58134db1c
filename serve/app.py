"""The router over HTTP: paths, methods and status codes of the Open Inference Protocol v2, plus `/v1/events` and `/metrics`.

| status | when |
|---|---|
| 400 | the request is not what it must be |
| 404, 405 | no such path, model or version; another method |
| 413 | the body is larger than `serving.max_body` |
| 500 | the control itself cannot answer |
| 503 | not ready yet, too many requests waiting, or the exposure cannot be written |

Every error has the body `{"error": "..."}`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import metadata
from typing import NamedTuple, Protocol
from urllib.parse import unquote

import msgspec

from ..core.errors import InputError, LiftgateError, RunFailed, UnknownName
from ..core.signature import InputSpec, OutputSpec
from .router import SLATE, NotRecorded, Overloaded, Router
from .wire import HEADER_LENGTH, datatype_of

LOG = logging.getLogger(__name__)
_JSON = [("content-type", "application/json")]
# How much of a body that is too large is still read, so that the client finishes sending and sees the 413.
_DRAINED_BYTES = 64 * 2**20


class Headers(Protocol):
    """What we use of RSGI's headers."""

    def get(self, key: str, /) -> str | None: ...


class Scope(Protocol):
    """What we use of RSGI's request scope."""

    @property
    def proto(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Headers: ...


class Exchange(Protocol):
    """What we use of RSGI's HTTP protocol object."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes
    headers: list[tuple[str, str]]


class TooLarge(InputError):
    """The body is larger than the router takes."""


def _json(value: object, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value), _JSON)


def _error(status: int, message: str) -> Reply:
    return _json({"error": message}, status)


def _dims(spec: InputSpec | OutputSpec) -> list[int]:
    return [dim if isinstance(dim, int) else -1 for dim in spec.shape]


class App:
    """The RSGI application over one router."""

    def __init__(self, router: Router) -> None:
        self.router = router

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer one request; nothing but a reply leaves here."""
        if scope.proto != "http":
            return
        reply = await self._guarded(scope, exchange)
        exchange.response_bytes(reply.status, reply.headers, reply.body)

    async def _guarded(self, scope: Scope, exchange: Exchange) -> Reply:
        try:
            reply = await self._route(scope, exchange)
        except TooLarge as error:
            reply = _error(413, str(error))
        except (Overloaded, NotRecorded) as error:
            reply = _error(503, str(error))
        except RunFailed as error:
            LOG.error("%s", error)
            reply = _error(500, str(error))
        except LiftgateError as error:
            reply = _error(400, str(error))
        except Exception:  # our own bug: the client gets the protocol's error body, the traceback goes to the log
            LOG.exception("%s %s", scope.method, scope.path)
            reply = _error(500, "internal error")
        if reply.status >= 400:
            self.router.metrics.count("liftgate_errors_total", status=str(reply.status))
        return reply

    async def _route(self, scope: Scope, exchange: Exchange) -> Reply:  # noqa: PLR0911 - one line per path
        match [unquote(part) for part in scope.path.strip("/").split("/")]:
            case ["v2"]:
                return _only("GET", scope, self._server)
            case ["v2", "health", "live"]:
                return _only("GET", scope, lambda: _json({"live": True}))
            case ["v2", "health", "ready"]:
                return _only("GET", scope, self._ready)
            case ["v2", "models", model, *rest]:
                return await self._model(model, rest, scope, exchange)
            case ["v1", "events"]:
                return await _only_post(scope, lambda: self._events(scope, exchange))
            case ["metrics"]:
                return _only("GET", scope, self._metrics)
            case _:
                return _error(404, f"nothing answers to {scope.path}")

    async def _model(self, model: str, rest: list[str], scope: Scope, exchange: Exchange) -> Reply:
        version = None
        try:
            if model != self.router.experiment.name:
                raise UnknownName("router", "model", model, [self.router.experiment.name])
            if rest[:1] == ["versions"] and len(rest) > 1:
                version, rest = rest[1], rest[2:]
                self.router.arm_of_version(version)
        except UnknownName as error:
            return _error(404, str(error))
        match rest:
            case []:
                return _only("GET", scope, lambda: self._metadata(version))
            case ["ready"]:
                return _only("GET", scope, self._ready)
            case ["infer"]:
                return await _only_post(scope, lambda: self._infer(scope, exchange, version))
            case _:
                return _error(404, f"nothing answers to {scope.path}")

    def _server(self) -> Reply:
        return _json({"name": "liftgate", "version": metadata.version("liftgate"), "extensions": ["binary_tensor_data"]})

    def _metrics(self) -> Reply:
        return Reply(200, self.router.render_metrics().encode(), [("content-type", "text/plain; version=0.0.4")])

    def _ready(self) -> Reply:
        return _json({"ready": True}) if self.router.ready else _error(503, "the models are still warming up, or the router is stopping")

    def _metadata(self, version: str | None) -> Reply:
        """What to send: the union of all arms' inputs, so that any arm can answer."""
        router = self.router
        arms = list(router.arms.values()) if version is None else [router.arm_of_version(version)]
        outputs = [o for o in router.control.signature.outputs if o.name in router.outputs]
        return _json(
            {
                "name": router.experiment.name,
                "versions": [arm.version for arm in arms],
                "platform": "liftgate",
                "inputs": [{"name": s.name, "datatype": datatype_of(s.dtype), "shape": _dims(s)} for s in router.inputs.values()],
                "outputs": [
                    *({"name": o.name, "datatype": datatype_of(o.dtype), "shape": _dims(o)} for o in outputs),
                    {"name": SLATE, "datatype": "INT64", "shape": [-1]},
                ],
            }
        )

    async def _infer(self, scope: Scope, exchange: Exchange, version: str | None) -> Reply:
        body = await self._body(scope, exchange)
        if not self.router.ready:
            return self._ready()
        headers = scope.headers
        answer = await self.router.infer(
            body, header_length=headers.get(HEADER_LENGTH), header_user=headers.get("x-user-id"), version=version
        )
        return Reply(200, answer.body, answer.headers)

    async def _events(self, scope: Scope, exchange: Exchange) -> Reply:
        return _json({"accepted": await self.router.record_events(await self._body(scope, exchange))})

    async def _body(self, scope: Scope, exchange: Exchange) -> bytes:
        limit = self.router.experiment.serving.max_body_bytes
        if scope.headers.get("content-encoding") not in (None, "", "identity"):
            raise InputError.mismatch(
                "request body", expected="no compression", found=f"content-encoding {scope.headers.get('content-encoding')}"
            )
        chunks: list[bytes] = []
        size = 0
        async for chunk in exchange:
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            elif size > limit + _DRAINED_BYTES:
                break
        if size > limit:
            raise TooLarge.mismatch(
                "request body", expected=f"at most {limit} bytes", found="more", fix="send fewer candidates, or raise serving.max_body"
            )
        return b"".join(chunks)


def _only(method: str, scope: Scope, answer: Callable[[], Reply]) -> Reply:
    return answer() if scope.method == method else _error(405, f"{scope.path} takes {method}, not {scope.method}")


async def _only_post(scope: Scope, answer: Callable[[], Awaitable[Reply]]) -> Reply:
    return await answer() if scope.method == "POST" else _error(405, f"{scope.path} takes POST, not {scope.method}")
