"""The certificates that connections are checked against: reading them takes longer than most requests, so once."""

from __future__ import annotations

import ssl
from functools import cache

import httpx2


@cache
def trusted() -> ssl.SSLContext:
    """The authorities that httpx trusts by default, or those that SSL_CERT_FILE and SSL_CERT_DIR name."""
    return httpx2.create_ssl_context()
