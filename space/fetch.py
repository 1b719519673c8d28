"""Fetches a file from a public address that a caller named, without being led into our own network.

A name is resolved once; every address that it gives must be public, and the connection goes to one of those very
addresses, so that a name which resolves anew to something else (DNS rebinding) gains nothing. Redirects are followed
by hand, and each is checked like the first address. Nothing of the environment (proxies, netrc) is used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

MAX_REDIRECTS = 5
MAX_URL_CHARS = 4096
PORTS = frozenset({80, 443, 8080})
"""What a Space can reach outside; nothing else needs to be asked of other machines."""
_TIMEOUT = httpx.Timeout(20.0, connect=10.0)
_TOTAL_SECONDS = 300.0
_RESOLVE_SECONDS = 10.0
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# addresses that carry another one inside: a translator on the way could lead them anywhere
_TRANSLATED = tuple(
    ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


class FetchRefused(ValueError):
    """An address that is not fetched, or that gives no file; the sentence says why."""


@dataclass(frozen=True, slots=True)
class _Target:
    """An address taken apart: `host` as it was written, `address` the number to connect to."""

    scheme: str
    host: str
    port: int
    rest: str
    address: IpAddress

    @property
    def netloc(self) -> str:
        default = 443 if self.scheme == "https" else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        number = f"[{self.address}]" if self.address.version == 6 else f"{self.address}"
        return f"{self.scheme}://{number}:{self.port}{self.rest}"


def is_public(address: IpAddress) -> bool:
    """Whether an address is out on the internet, and not ours, our network's or a cloud's own."""
    if any(address in network for network in _TRANSLATED if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class Fetcher:
    """Fetches files of at most `max_bytes`. `allowed` and `ports` say where connections may go."""

    def __init__(
        self,
        *,
        max_bytes: int,
        allowed: Callable[[IpAddress], bool] = is_public,
        ports: frozenset[int] = PORTS,
    ) -> None:
        self._max_bytes = max_bytes
        self._allowed = allowed
        self._ports = ports

    async def fetch(self, url: str) -> AsyncIterator[bytes]:
        """The bytes behind the address. Raises FetchRefused, also in the middle where it is too much."""
        deadline = asyncio.get_running_loop().time() + _TOTAL_SECONDS
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_TIMEOUT) as client:
            try:
                response = await self._follow(client, url)
                try:
                    self._check(response)
                    received = 0
                    async for chunk in response.aiter_raw():
                        received += len(chunk)
                        if received > self._max_bytes:
                            raise FetchRefused(self._too_large())
                        if asyncio.get_running_loop().time() > deadline:
                            raise FetchRefused(f"the file did not arrive within {_TOTAL_SECONDS:g} s.")
                        yield chunk
                finally:
                    await response.aclose()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise FetchRefused(f"the address could not be fetched ({type(error).__name__}).") from None

    async def _follow(self, client: httpx.AsyncClient, url: str) -> httpx.Response:
        """The answer at the end of the redirects, its body not read yet."""
        scheme = ""
        for _ in range(MAX_REDIRECTS + 1):
            target = await self._checked(url)
            if scheme == "https" and target.scheme != "https":
                raise FetchRefused("the address redirects from https to http.")
            scheme = target.scheme
            request = client.build_request(
                "GET",
                target.url,
                headers={"Host": target.netloc, "Accept-Encoding": "identity", "User-Agent": "code-interpreter"},
                # the certificate must be the name's, although we connect to a number
                extensions={"sni_hostname": target.host},
            )
            response = await client.send(request, stream=True)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            url = urljoin(url, response.headers.get("location", ""))
        raise FetchRefused(f"the address redirects more than {MAX_REDIRECTS} times.")

    async def _checked(self, url: str) -> _Target:
        try:
            if len(url) > MAX_URL_CHARS or not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
                raise ValueError
            parts = urlsplit(url)
            host = (parts.hostname or "").rstrip(".")
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise FetchRefused("that is no address; write it like https://example.org/data.csv.") from None
        if parts.scheme not in ("http", "https") or not host:
            raise FetchRefused("only http and https addresses are fetched, like https://example.org/data.csv.")
        if parts.username is not None or parts.password is not None:
            raise FetchRefused("an address with a user name or password in it is not fetched.")
        if port not in self._ports:
            raise FetchRefused(f"port {port} is not fetched from; allowed are {_listed(self._ports)}.")
        rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return _Target(parts.scheme, host, port, rest, await self._resolved(host, port))

    async def _resolved(self, host: str, port: int) -> IpAddress:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        except (OSError, TimeoutError, ValueError):
            addresses = []
        if not addresses:
            raise FetchRefused(f"the host name {host[:100]!r} was not found.")
        # one that is not public beside others that are is somebody's try
        if not all(self._allowed(address) for address in addresses):
            raise FetchRefused(f"{host[:100]!r} is no public address, and only those are fetched.")
        return addresses[0]

    def _check(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            raise FetchRefused(f"the address answered with status {response.status_code} instead of a file.")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _PAGES:
            raise FetchRefused("the address gave a web page (HTML) instead of a file; give the file's own address.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchRefused("the address gave compressed content although plain was asked for.")
        size = response.headers.get("content-length", "")
        if size.isdigit() and int(size) > self._max_bytes:
            raise FetchRefused(self._too_large())

    def _too_large(self) -> str:
        return f"the file is over the limit of {self._max_bytes:,} bytes; nothing was kept."


def _listed(ports: frozenset[int]) -> str:
    return ", ".join(str(port) for port in sorted(ports))
