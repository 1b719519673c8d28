"""Asks the Space's own `/healthz`, with a token and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from deploy.trust import trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach a private Space: the token, in which header, and the Space's own second key if it has one.

    With `stripped`, the token travels as `X-HF-Authorization`, which Hugging Face's proxy takes off: the app, and code
    that guests run in it, can then never see it. The token that may write is only ever sent this way.
    """

    token: str = field(repr=False)
    stripped: bool = False
    access_key: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The request headers."""
        name = "X-HF-Authorization" if self.stripped else "Authorization"
        return {name: f"Bearer {self.token}"} | ({"X-Access-Key": self.access_key} if self.access_key else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An answer of `/healthz`: HTTP status (0: no answer, `reason` says why) and its JSON."""

    status: int
    data: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the app answered that it is well."""
        return self.status == 200 and bool(self.data)

    @property
    def build_id(self) -> str:
        """The build that answered, empty where it does not say."""
        return str(self.data.get("build") or "")

    def has(self, settings: str) -> bool:
        """Whether the process that answered was started with these settings; one that does not tell is believed."""
        return not settings or self.data.get("settings", settings) == settings


def healthz(address: str, access: Access | None, *, timeout: float = 20.0) -> Health:
    """Ask once, within `timeout` seconds; redirects are not followed, so that the token goes nowhere else."""
    try:
        with httpx2.Client(verify=trusted(), timeout=timeout, follow_redirects=False) as client:
            response = client.get(f"{address}/healthz", headers=access.headers if access else {})
    except httpx2.HTTPError as error:
        return Health(status=0, reason=type(error).__name__)
    try:
        data = response.json()
    except ValueError:
        data = {}
    return Health(status=response.status_code, data=data if isinstance(data, dict) else {})


def anonymous_status(url: str, *, timeout: float = 20.0) -> int:
    """The HTTP status that `url` gives to somebody without a token, 0 for no answer; a stream is not read."""
    try:
        with (
            httpx2.Client(verify=trusted(), timeout=timeout, follow_redirects=False) as client,
            client.stream("GET", url, headers={"Accept": "text/event-stream, application/json, text/html"}) as response,
        ):
            return response.status_code
    except httpx2.HTTPError:
        return 0
