"""A model and limits -> the ASGI application: its routes, guarded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from residua._version import __version__
from residua.serving.guard import Guard
from residua.serving.limits import Limits, Refused
from residua.serving.metrics import Metrics
from residua.serving.open_inference import add_open_inference
from residua.serving.pages import docs_page, start_page
from residua.serving.responses import POST_REFUSALS, Json, documented, request_body
from residua.serving.service import Model, Service
from residua.serving.uploads import files_of


def _images(format: str) -> dict[str, object]:
    """The schema of {"images": [...]}; an empty image has a row with its error."""
    items = {"type": "string", "format": format}
    images = {"type": "array", "items": items, "minItems": 1}
    return {"type": "object", "properties": {"images": images}, "required": ["images"]}


def create_app(
    model: Model, limits: Limits, *, token: str | None, report: Callable[[str], None]
) -> FastAPI:
    """The application. token: clients must send it, except for the page and the health checks.
    report: prints errors for the operator."""
    metrics = Metrics()
    service = Service(model, limits, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title=f"residua: {model.name}",
        version=__version__,
        docs_url=None,  # FastAPI's own pages load scripts from another server
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_errors(app)
    _add_predict(app, service)
    if model.heat_map is not None:
        _add_explain(app, service)
    add_open_inference(app, service)
    _add_pages(app, service, needs_token=token is not None)
    app.add_middleware(Guard, limits=limits, token=token, metrics=metrics, report=report)
    return app


def _add_errors(app: FastAPI) -> None:
    """Errors of FastAPI and Starlette in the form of all others, {"error": reason}."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Json:
        reasons = "; ".join(f"{row['loc'][-1]}: {row['msg']}" for row in error.errors())
        return Json({"error": reasons}, 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Json:
        reason, path = error.detail, request.url.path
        if error.status_code == 404:
            reason = f"{path}: there is no such route; /docs lists all"
        elif error.status_code == 405:
            methods = (error.headers or {}).get("Allow", "another method")
            reason = f"{request.method} {path}: expected {methods}; /docs describes all routes"
        return Json({"error": reason}, error.status_code, error.headers)


def _add_predict(app: FastAPI, service: Service) -> None:
    body = request_body(
        {
            "multipart/form-data": _images("binary"),
            "application/octet-stream": {"type": "string", "format": "binary", "minLength": 1},
            "application/json": _images("byte"),
        }
    )

    @app.post(
        "/predict", tags=["prediction"], openapi_extra=body, responses=documented(*POST_REFUSALS)
    )
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, description="Classes per image.")] = 3,
    ) -> Json:
        """Predict the classes of images: the rows of `residua predict --format json`.

        Send one or several files as multipart/form-data, one image as raw bytes, or
        {"images": [base64, ...]}. An unreadable image has a row with its error; if none can be
        read, the status is 422.
        """
        files = await files_of(request, service.limits)
        rows = await service.predict(files, top)
        content: Any = [row.to_json() for row in rows]
        if all(row.error for row in rows):
            reasons = "; ".join(f"{row.file}: {row.error}" for row in rows)
            return Json({"error": reasons, "predictions": content}, 422)
        return Json(content)


def _add_explain(app: FastAPI, service: Service) -> None:
    body = request_body({"application/octet-stream": {"type": "string", "format": "binary"}})
    image: Any = {200: {"description": "the image", "content": {"image/jpeg": {}}}}

    @app.post(
        "/explain",
        tags=["prediction"],
        openapi_extra=body,
        responses=image | documented(*POST_REFUSALS),
        response_class=Response,
    )
    async def explain(request: Request) -> Response:
        """Show where the evidence for the predicted class is (Grad-CAM), as in `residua explain`.

        Send one image. The response is a JPEG file: the image as the network receives it, under its
        heat map.
        """
        files = await files_of(request, service.limits)
        if len(files) != 1:
            raise Refused(422, f"{len(files)} images: expected one")
        return Response(await service.explain(files[0][1]), media_type="image/jpeg")


def _add_pages(app: FastAPI, service: Service, *, needs_token: bool) -> None:
    start = start_page(service.model, service.limits, needs_token=needs_token)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return start

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return docs_page(app.openapi())

    @app.get(
        "/metrics", response_class=PlainTextResponse, tags=["operation"], responses=documented(401)
    )
    async def metrics() -> PlainTextResponse:
        """Counts and times in Prometheus' text format."""
        text = service.metrics.text(service.batcher.waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
