"""`/healthz`: whether the Space works, which build it is, and how well code is held."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from space.build import NOTE, build_id, settings_id
from space.toolbox import Toolbox


def health_route(toolbox: Toolbox) -> Route:
    """The route; 503 until the executor has started."""

    async def healthz(request: Request) -> JSONResponse:
        headers = {"Cache-Control": "no-store"}
        if not toolbox.ready.is_set():
            return JSONResponse({"status": "starting", "build": build_id()}, 503, headers)
        report = toolbox.executor.sandbox
        layers = {name: layer.on for name, layer in report.layers.items()}
        sandbox = {"level": report.level, "layers": layers}
        data = {
            "status": "ok",
            "build": build_id(),
            "settings": settings_id(os.environ.get(NOTE, "")),
            "sandbox": sandbox,
        }
        return JSONResponse(data, headers=headers)

    return Route("/healthz", healthz, methods=["GET"])
