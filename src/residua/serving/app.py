"""A model and limits -> the ASGI application: its routes, guarded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from residua._version import __version__
from residua.serving import open_inference
from residua.serving.guard import Guard
from residua.serving.limits import Limits, Refused
from residua.serving.metrics import Metrics
from residua.serving.pages import docs_page, start_page
from residua.serving.responses import Json, documented
from residua.serving.service import Model, Service
from residua.serving.uploads import files_of

POST = (401, 413, 415, 422, 429, 503)  # refusals of a request with a body


def _body(schemas: dict[str, dict[str, object]]) -> dict[str, Any]:
    """The request body of a route in the OpenAPI description. schemas: by content type."""
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}


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
    _add_open_inference(app, service)
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
    async def failed(_: Request, error: HTTPException) -> Json:
        return Json({"error": error.detail}, error.status_code, error.headers)


def _add_predict(app: FastAPI, service: Service) -> None:
    body = _body(
        {
            "multipart/form-data": _images("binary"),
            "application/octet-stream": {"type": "string", "format": "binary", "minLength": 1},
            "application/json": _images("byte"),
        }
    )

    @app.post("/predict", tags=["prediction"], openapi_extra=body, responses=documented(*POST))
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
    body = _body({"application/octet-stream": {"type": "string", "format": "binary"}})
    image: Any = {200: {"description": "the image", "content": {"image/jpeg": {}}}}

    @app.post(
        "/explain",
        tags=["prediction"],
        openapi_extra=body,
        responses=image | documented(*POST),
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


def _add_open_inference(app: FastAPI, service: Service) -> None:
    tags: Any = ["Open Inference Protocol v2"]
    name, version = service.model.name, open_inference.VERSION
    # stated in the description alone: `check` has the better message
    own: Any = Path(alias="name", json_schema_extra={"enum": [name]})
    first: Any = Path(alias="version", json_schema_extra={"enum": [version]})

    def check(is_known: bool, asked: str) -> None:
        if not is_known:
            raise Refused(404, f"{asked}: this server has {name}, version {version}")

    async def check_name(given: str = own) -> None:
        check(given == name, f"model {given}")

    async def check_version(given: str = first) -> None:
        check(given == version, f"version {given}")

    @app.get("/v2/health/live", tags=tags)
    async def live() -> dict[str, bool]:
        """Whether the server runs."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=tags)
    async def ready() -> dict[str, bool]:
        """Whether the model is loaded."""
        return {"ready": True}

    @app.get("/v2", tags=tags, responses=documented(401))
    async def server() -> dict[str, object]:
        """Name, version and extensions of the server."""
        return open_inference.server_metadata()

    async def model() -> dict[str, object]:
        """Inputs and outputs of the model."""
        return open_inference.model_metadata(service.model)

    async def model_ready() -> dict[str, object]:
        """Whether the model is loaded."""
        return {"name": name, "ready": True}

    async def infer(request: Request) -> Json:
        """Probabilities and labels of one input: BYTES (image files) or UINT8 (pixels)."""
        return Json(await open_inference.infer(request, service))

    of_name, of_version = Depends(check_name), Depends(check_version)
    body = _body({"application/json": open_inference.SCHEMA})
    for path, checks in (
        ("/v2/models/{name}", [of_name]),
        ("/v2/models/{name}/versions/{version}", [of_name, of_version]),
    ):
        rules: Any = {"tags": tags, "dependencies": checks, "responses": documented(401, 404)}
        posted: Any = rules | {"responses": documented(404, *POST), "openapi_extra": body}
        app.get(path, **rules)(model)
        app.get(f"{path}/ready", **rules)(model_ready)
        app.post(f"{path}/infer", **posted)(infer)


def _add_pages(app: FastAPI, service: Service, *, needs_token: bool) -> None:
    start = start_page(service.model, service.limits, needs_token=needs_token)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(start.html, headers=start.headers)

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = docs_page(app.openapi())
        return HTMLResponse(page.html, headers=page.headers)

    @app.get(
        "/metrics", response_class=PlainTextResponse, tags=["operation"], responses=documented(401)
    )
    async def metrics() -> PlainTextResponse:
        """Counts and times in Prometheus' text format."""
        text = service.metrics.text(service.batcher.waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
