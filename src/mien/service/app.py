"""The ASGI application: routes, limits and error responses."""

import asyncio
import io
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import prometheus_client as prometheus
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien.base.errors import ModelFailure
from mien.base.version import __version__
from mien.data import images
from mien.demo.sample import draw_sample
from mien.evaluation.occlusion import occlusion
from mien.prediction.photographs import READ
from mien.prediction.predict import SHIPPED_NOTICE, FaceCrop, Predictor, Row
from mien.service.batches import Batches, ImageResult
from mien.service.hosts import is_allowed
from mien.service.limits import ServiceLimits
from mien.service.schemas import EXAMPLES, Error, Explanation, ModelInfo, Prediction
from mien.service.uploads import FIELD, Holding, Memory, Refusal, Upload, read_uploads, stated_bytes
from mien.weights import model_card

LABELS = (
    "Predictions are perceived binary gender and age, as labelled by people who saw photographs. They do not describe "
    "a person's identity, and nobody is identified."
)

_log = logging.getLogger("mien.service")

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": words}
    for status, words in (
        (400, "The request cannot be understood"),
        (401, "The API key is missing or wrong"),
        (408, "The request was not received in time"),
        (413, "More bytes, images or pixels than allowed"),
        (415, "Neither a form nor an image"),
        (421, "The header Host names another service"),
        (422, "No image could be read, or a parameter is wrong"),
        (500, "The model or the service failed; nothing of the request is kept"),
        (503, "Too many requests; retry after Retry-After seconds"),
    )
}


def make_app(
    predictor: Predictor,
    limits: ServiceLimits | None = None,
    api_key: str | None = None,
    hosts: Collection[str] = (),
) -> FastAPI:
    """Creates the ASGI application.

    Args:
        predictor: The model and the detector.
        limits: Limits of requests; None: the defaults.
        api_key: If given, `/v1` and `/metrics` require `Authorization: Bearer KEY`.
        hosts: Names that requests may have in the header Host, besides "localhost" and addresses.
    """
    limits = limits or ServiceLimits()
    service = _Service(predictor, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.batches.start()
        service.ready = True
        yield
        service.ready = False
        await service.batches.stop()

    # FastAPI's pages for /docs load scripts from other hosts.
    app = FastAPI(
        title="mien", version=__version__, description=LABELS, lifespan=lifespan, docs_url=None, redoc_url=None
    )

    keyed = [Depends(_authorization(api_key))]
    _add_model(app, service, keyed)
    _add_status(app, service, keyed)
    _add_page(app, service)

    app.exception_handler(Refusal)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_plain)
    app.exception_handler(ModelFailure)(_model_failed)
    app.add_middleware(_Middleware, service=service, hosts={host.lower() for host in hosts})
    return app


_Crops = Annotated[bool, Query(description="Each image is a face crop: no detection.")]


def _authorization(api_key: str | None) -> Callable[[Request], None]:
    """Returns the check that refuses requests without the API key; None: no key is needed."""

    def authorize(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if api_key is not None and not secrets.compare_digest(given.encode(), f"Bearer {api_key}".encode()):
            raise Refusal(401, "unauthorized", "this service requires 'Authorization: Bearer KEY' with its API key")

    return authorize


def _add_model(app: FastAPI, service: "_Service", keyed: list[Any]) -> None:
    """Adds the routes of `/v1`: predictions, explanations, and the description of the model."""

    @app.post("/v1/predict", dependencies=keyed, openapi_extra=_BODY, responses={200: EXAMPLES["predict"], **_REFUSALS})
    async def predict(request: Request, crops: _Crops = False) -> Prediction:
        """Perceived gender and age of each face in one or more images, one row per face.

        An image without a face, or one that cannot be read, has one row with the reason in `status`; if no image can be
        read, the response is 422.
        """
        return JSONResponse(await service.respond(request, lambda uploads: service.predict(uploads, crops)))  # type: ignore[return-value]

    @app.post("/v1/explain", dependencies=keyed, openapi_extra=_BODY, responses={200: EXAMPLES["explain"], **_REFUSALS})
    async def explain(
        request: Request,
        crops: _Crops = False,
        face: Annotated[int, Query(ge=0, le=999, description="The face_index of the face.")] = 0,
    ) -> Explanation:
        """Occlusion maps of one face: the regions that the predictions depend on."""
        return JSONResponse(await service.respond(request, lambda uploads: service.explain(uploads, crops, face)))  # type: ignore[return-value]

    @app.get("/v1/model", dependencies=keyed, responses={401: _REFUSALS[401]})
    def model() -> ModelInfo:
        """The model, its training data and the limits of requests."""
        return ModelInfo(**service.about())


def _add_status(app: FastAPI, service: "_Service", keyed: list[Any]) -> None:
    """Adds the routes for monitoring."""

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """Liveness check."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: _REFUSALS[503]})
    def readyz() -> dict[str, str]:
        """Readiness check."""
        if not service.ready:
            raise Refusal(503, "not ready", "the service is starting or stopping", retry_after=1)
        return {"status": "ready"}

    @app.get("/metrics", dependencies=keyed, response_class=Response, responses={401: _REFUSALS[401]})
    def metrics() -> Response:
        """Counts and times in the text format of Prometheus."""
        return Response(prometheus.generate_latest(service.registry), media_type=prometheus.CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI, service: "_Service") -> None:
    """Adds the routes of the web page: its files, the drawn sample, and the card of the model that ships."""

    def add(path: str, give: Callable[[], Response]) -> None:
        app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)(give)

    for file in resources.files("mien").joinpath("service", "page").iterdir():
        kind = _KINDS.get(Path(file.name).suffix)
        if kind is not None:
            add("/" if file.name == "index.html" else f"/{file.name}", _static(file.read_bytes(), kind))
    add("/sample.png", lambda: Response(_sample(), media_type="image/png"))
    if service.predictor.shipped:
        add("/card.txt", _static(model_card().encode(), "text/plain; charset=utf-8"))


@cache
def _sample() -> bytes:
    file = io.BytesIO()
    draw_sample().save(file, "PNG")
    return file.getvalue()


class _Service:
    """Shared state of the routes: the batches, the pending bytes and the counters."""

    def __init__(self, predictor: Predictor, limits: ServiceLimits) -> None:
        self.predictor = predictor
        self.limits = limits
        self.batches = Batches(predictor, limits)
        self.ready = False
        self.holding = Holding(limits.waiting_bytes)
        self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter("mien_requests", "Requests", ["path", "status"], registry=self.registry)
        self.seconds = prometheus.Histogram("mien_request_seconds", "Seconds", ["path"], registry=self.registry)
        self._images = prometheus.Counter("mien_images", "Images by their status", ["status"], registry=self.registry)
        self._faces = prometheus.Counter("mien_faces", "Faces predicted", registry=self.registry)
        held = prometheus.Gauge("mien_held_bytes", "Bytes of requests in memory", registry=self.registry)
        held.set_function(lambda: self.holding.bytes)

    async def respond(self, request: Request, work: Callable[[list[Upload]], Awaitable[Any]]) -> Any:
        """Reads a request and processes it within the limits; stops if the client disconnects."""
        end = time.monotonic() + self.limits.seconds
        memory = Memory(self.holding, stated_bytes(request, self.limits))
        try:
            try:
                async with asyncio.timeout(self.limits.seconds):
                    uploads = await read_uploads(request, self.limits, memory)
            except TimeoutError:
                words = f"the request was not received within {self.limits.seconds:g} seconds"
                raise Refusal(408, "slow request", words) from None
            return await self._finish(request, asyncio.ensure_future(work(uploads)), end)
        finally:
            memory.release()

    async def _finish(self, request: Request, working: "asyncio.Future[Any]", end: float) -> Any:
        gone = asyncio.ensure_future(request.receive())  # after the body, the only message is the disconnect
        try:
            await asyncio.wait({working, gone}, timeout=end - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if gone.done():
                raise Refusal(400, "gone", "the client disconnected")
            words = f"no result within {self.limits.seconds:g} seconds; retry later, or with fewer images"
            raise Refusal(503, "too slow", words, retry_after=5)
        finally:
            for future in (working, gone):
                future.cancel()

    async def predict(self, uploads: list[Upload], crops: bool) -> dict[str, Any]:
        """Returns the response of /v1/predict."""
        results = await self.batches.predict(uploads, crops)
        self._count(results)
        first = [result.rows[0] for result in results]
        if all(row["status"] not in READ for row in first):
            reasons = ", ".join(sorted({row["status"] for row in first}))
            raise Refusal(422, reasons if len(first) == 1 else "no image could be read", _unread(first))
        rows = [row for result in results for row in result.rows]
        left_out = sum(result.left_out for result in results)
        return {"model": self.predictor.name, "rows": rows, "faces_left_out": left_out}

    async def explain(self, uploads: list[Upload], crops: bool, face: int) -> dict[str, Any]:
        """Returns the response of /v1/explain."""
        if len(uploads) > 1:
            raise Refusal(400, "too many images", f"{len(uploads)} images; give exactly one image to explain")
        found = await self.batches.find_faces(uploads[0], crops)
        there = [crop for crop in found if crop.pixels is not None][: self.limits.faces]
        if not there:
            status = found[0].row["status"]
            raise Refusal(422, status, f"the image has no face to explain: {status}")
        if face >= len(there):
            raise Refusal(422, "no such face", f"face={face}; valid: 0 to {len(there) - 1}")
        maps = await self.batches.run(occlusion, self.predictor, there[face].pixels)
        left, top, side = await self.batches.run(_place, self.predictor, uploads[0], there[face])
        return {
            "face_index": face,
            "crop": {"x": round(left, 1), "y": round(top, 1), "side": round(side, 1)},
            "maps": {name: [[round(float(value), 4) for value in row] for row in grid] for name, grid in maps.items()},
        }

    def about(self) -> dict[str, Any]:
        """Returns the response of /v1/model."""
        metadata = self.predictor.metadata
        lineage = metadata.get("lineage", {})
        return {
            "name": self.predictor.name,
            "labels": LABELS,
            "tasks": metadata["tasks"],
            "columns": self.predictor.columns,
            "image_size": self.predictor.size,
            "unsure_below": metadata.get("unsure_below"),
            "data": {"dataset": lineage.get("dataset"), "faces": lineage.get("faces")},
            "calibration": metadata.get("calibration"),
            "notice": SHIPPED_NOTICE if self.predictor.shipped else None,
            "card": self.predictor.shipped,
            "limits": vars(self.limits),
            "version": __version__,
        }

    def _count(self, results: list[ImageResult]) -> None:
        for result in results:
            self._images.labels(result.rows[0]["status"]).inc()
            self._faces.inc(sum(row["status"] == "ok" for row in result.rows))


def _place(predictor: Predictor, upload: Upload, crop: FaceCrop) -> tuple[float, float, float]:
    """The square of the upright image that is the input of the network."""
    if "x" in crop.row:
        x, y, w, h = (crop.row[edge] for edge in "xywh")
        return images.square(0, 0, (x, y, w, h), predictor.margin)
    height, width = images.load(upload.content).shape[:2]
    return images.square(width, height)


def _unread(rows: list[Row]) -> str:
    return "; ".join(f"{row['file']}: {row['status']}" for row in rows[:5]) + (" ..." if len(rows) > 5 else "")


def _static(content: bytes, kind: str) -> Callable[[], Response]:
    def give() -> Response:
        return Response(content, media_type=kind)

    return give


def _error(status: int, reason: str, detail: str, retry_after: int | None = None) -> JSONResponse:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"reason": reason, "detail": detail}, status, headers)


def _refused(_: Request, error: Any) -> JSONResponse:
    return _error(error.status, error.reason, error.detail, error.retry_after)


def _model_failed(_: Request, error: Any) -> JSONResponse:
    # The message names the model, an output and a number: nothing of the request.
    _log.error("%s", error)
    return _error(500, "model failed", str(error))


_other_host = _error(
    421, "unknown host", "the header Host names another service; valid: localhost, addresses, --host and --allow-host"
)


def _invalid(_: Request, error: Any) -> JSONResponse:
    messages = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return _error(422, "invalid parameter", "; ".join(messages))


def _plain(_: Request, error: Any) -> JSONResponse:
    response = _error(error.status_code, error.detail.lower(), error.detail)
    response.headers.update(error.headers or {})
    return response


class _Middleware:
    """Middleware of all routes: security headers, counters, and no tracebacks in responses."""

    def __init__(self, app: ASGIApp, service: _Service, hosts: Collection[str]) -> None:
        self._app = app
        self._service = service
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        app = self._app if is_allowed(Headers(scope=scope).get("host", ""), self._hosts) else _other_host
        try:
            await app(scope, receive, send_with_headers)
        except Exception as error:
            # The message of an error may contain image data or file names; its type and location do not.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
            _log.error("%s at %s", type(error).__name__, where)
            if not status:
                await _error(500, "failed", "the service failed; nothing of the request is kept")(
                    scope, receive, send_with_headers
                )
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._service.requests.labels(path, str(status)).inc()
            self._service.seconds.labels(path).observe(time.perf_counter() - begin)
