"""Exposition: the route `/metrics`, in Prometheus' text format and in OpenMetrics, and who may read it."""

from __future__ import annotations

import asyncio
import hmac

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from executor.events import AccessRefused, Bus
from executor.settings import Settings

_WRONG_KEY_SECONDS = 0.5
_MOST_WAITING = 16


def may_scrape(settings: Settings, key: str | None) -> bool:
    """Whether a request gets the metrics; `key` is its parameter, None where it has none.

    With a parameter it must be METRICS_KEY: a scraper's Authorization header is spent on the Hub's token. Without one
    the request is let in where `space.access` has asked it for ACCESS_KEY before, or where neither key is set: then
    only the wall of a private Space stands. Takes the same time whatever is wrong.
    """
    if key is not None:
        same = hmac.compare_digest(key.encode("utf-8", "replace"), settings.metrics_key.encode())
        # a key that is not set must not be opened by an empty one
        return (same and bool(settings.metrics_key)) or not (settings.metrics_key or settings.access_key)
    return bool(settings.access_key) or not settings.metrics_key


def metrics_route(registry: CollectorRegistry, settings: Settings, bus: Bus, *, path: str = "/metrics") -> Route:
    """The route; OpenMetrics where the scraper asks for it. A wrong key gets 401 and an `AccessRefused`, one such
    answer each half second, so that guessing takes years."""
    turn = asyncio.Lock()
    waiting = 0

    async def metrics(request: Request) -> Response:
        if not may_scrape(settings, request.query_params.get("key")):
            return await refuse()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # some milliseconds of work, and files to read: not on the loop
        body = await asyncio.to_thread(encode, registry)
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    async def refuse() -> Response:
        nonlocal waiting
        bus.publish(AccessRefused(reason="key", path=path))
        if waiting >= _MOST_WAITING:
            return PlainTextResponse("Too many wrong keys; try again in a minute.\n", status_code=429)
        waiting += 1
        try:
            async with turn:
                await asyncio.sleep(_WRONG_KEY_SECONDS)
        finally:
            waiting -= 1
        return PlainTextResponse("Give METRICS_KEY as the parameter `key`.\n", status_code=401)

    return Route(path, metrics, methods=["GET"], name="metrics")
