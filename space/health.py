"""`/healthz`: whether the Space works, which build it is, and how well code is held."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from space.toolbox import Toolbox

BUILD_FILE = Path(__file__).resolve().parent.parent / "BUILD"
"""Beside the entry file of a bundle, written by `deploy`; one line."""

SOURCE = "source"
"""Build id of a checkout, which is no build."""


@cache
def build_id() -> str:
    """The id of this build, `source` where it runs from a checkout."""
    try:
        return BUILD_FILE.read_text(encoding="utf-8").strip() or SOURCE
    except OSError:
        return SOURCE


@cache
def settings_id() -> str:
    """Twelve digits for the settings that `deploy` gave this process, empty where it gave none.

    A digest of `DEPLOY_STATE`, which holds names and salted fingerprints and is new with every change: it tells a
    process that has the new settings from the one before, which is of the same build.
    """
    note = os.environ.get("DEPLOY_STATE", "").strip()
    return hashlib.sha256(note.encode()).hexdigest()[:12] if note else ""


def health_route(toolbox: Toolbox) -> Route:
    """The route; 503 until the executor has started."""

    async def healthz(request: Request) -> JSONResponse:
        headers = {"Cache-Control": "no-store"}
        if not toolbox.ready.is_set():
            return JSONResponse({"status": "starting", "build": build_id()}, 503, headers)
        report = toolbox.executor.sandbox
        layers = {name: layer.on for name, layer in report.layers.items()}
        sandbox = {"level": report.level, "layers": layers}
        data = {"status": "ok", "build": build_id(), "settings": settings_id(), "sandbox": sandbox}
        return JSONResponse(data, headers=headers)

    return Route("/healthz", healthz, methods=["GET"])
