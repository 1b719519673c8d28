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


def may_scrape(settings: Settings, key: str, *, access: str = "") -> bool:
    """Whether a request with `key` as its parameter and `access` as its access key gets the metrics.

    Without ACCESS_KEY and METRICS_KEY everybody does: only the wall of a private Space stands then. Else METRICS_KEY
    in the parameter opens (a scraper's Authorization header is spent on the Hub's token), and so does ACCESS_KEY. Takes
    the same time whatever is wrong.
    """
    if not settings.access_key and not settings.metrics_key:
        return True
    # a key that is not set must not be opened by one that is not given
    by_key = _same(key, settings.metrics_key) and bool(settings.metrics_key)
    by_access = _same(access, settings.access_key) and bool(settings.access_key)
    return by_key or by_access


def metrics_route(registry: CollectorRegistry, settings: Settings, bus: Bus, *, path: str = "/metrics") -> Route:
    """The route; OpenMetrics where the scraper asks for it. 401 and an `AccessRefused` for a wrong key.

    `space.access` lets this path through when it bears a `key`: the route decides for itself.
    """

    async def metrics(request: Request) -> Response:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        access = request.headers.get("x-access-key", "") or bearer
        if not may_scrape(settings, request.query_params.get("key", ""), access=access):
            bus.publish(AccessRefused(reason="key", path=path))
            return PlainTextResponse("Give METRICS_KEY as the parameter `key`.\n", status_code=401)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # some milliseconds of work, and files to read: not on the loop
        body = await asyncio.to_thread(encode, registry)
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return Route(path, metrics, methods=["GET"], name="metrics")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))
