"""The blocks that an operator pastes into LibreChat: `librechat.yaml` and `.env`, for an address and a version."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Literal
from urllib.parse import urlsplit

Transport = Literal["sse", "streamable-http"]
AuthHeader = Literal["Authorization", "X-HF-Authorization"]

CONFIG_VERSION = "1.3.14"
"""Version of the configuration file's format; LibreChat takes an older one than its own."""
PATHS: dict[Transport, str] = {"sse": "/gradio_api/mcp/sse", "streamable-http": "/gradio_api/mcp/"}
CALL_TIMEOUT_MS = 300_000
"""LibreChat ends a call after this many milliseconds; unset it would be 60,000."""
INIT_TIMEOUT_MS = 60_000
"""Time for a Space to wake up before LibreChat gives up on connecting."""


def has_request_headers(version: str) -> bool:
    """Whether LibreChat `version` (`0.8.8`, `v0.8.7`, `v0.8.8-rc4`) knows `requestHeaders`.

    They came with 0.8.8, in its fourth release candidate at the latest; an older version drops the key without a
    word. Raises ValueError for what is no version.
    """
    match = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(?:-rc(\d+))?", version.strip())
    if match is None:
        raise ValueError(f"LibreChat version {version!r} is not understood; write it like 0.8.8 or v0.8.8-rc4.")
    major, minor, patch, candidate = match.groups()
    number = (int(major), int(minor), int(patch))
    return number > (0, 8, 8) or (number == (0, 8, 8) and (candidate is None or int(candidate) >= 4))


def yaml_block(
    address: str,
    *,
    transport: Transport = "sse",
    version: str = "0.8.8",
    auth_header: AuthHeader | None = "Authorization",
    access_key: bool = False,
    name: str = "code",
    whole_file: bool = False,
) -> str:
    """The `mcpServers` block of librechat.yaml for the Space at `address` (scheme and host, maybe a path).

    `auth_header` carries the Hugging Face token of a private Space, None for an address that needs none. Where
    `access_key` is set, the Space's own key travels in `X-Access-Key`. `whole_file` adds the version line that a file
    must begin with. The token and the key are named as environment variables, never written out (see `env_block`).
    """
    base = _base(address)
    headers = []
    if auth_header is not None:
        headers.append(f'{auth_header}: "Bearer ${{HF_TOKEN}}"')
    if access_key:
        headers.append('X-Access-Key: "${CODE_ACCESS_KEY}"')
    headers.append('X-User-Id: "{{LIBRECHAT_USER_ID}}"')
    conversation = '      X-Conversation-Id: "{{LIBRECHAT_BODY_CONVERSATIONID}}"'
    lines = [f"version: {CONFIG_VERSION}"] if whole_file else []
    if local := _private_host(base):
        # LibreChat refuses to connect to private addresses that are not named here
        lines += ["mcpSettings:", "  allowedAddresses:", f"    - {json.dumps(local)}"]
    lines += [
        "mcpServers:",
        f"  {name}:",
        f"    type: {transport}",
        f"    url: {json.dumps(base + PATHS[transport])}",
        "    headers:",
        *(f"      {line}" for line in headers),
    ]
    lines += ["    requestHeaders:", conversation] if has_request_headers(version) else [conversation]
    lines += [
        f"    timeout: {CALL_TIMEOUT_MS}",
        f"    initTimeout: {INIT_TIMEOUT_MS}",
        "    requiresOAuth: false",
        "    serverInstructions: true",
    ]
    return "\n".join(lines) + "\n"


def env_block(*, auth_header: AuthHeader | None = "Authorization", access_key: bool = False) -> str:
    """The lines of LibreChat's `.env` that `yaml_block` refers to, with places for the values."""
    lines = []
    if auth_header is not None:
        lines.append("HF_TOKEN=hf_...   # a read-only token that may see this Space")
    if access_key:
        lines.append("CODE_ACCESS_KEY=...   # the Space's ACCESS_KEY")
    return "".join(f"{line}\n" for line in lines)


def _base(address: str) -> str:
    parts = urlsplit(address.strip())
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is not an address; write it like https://owner-space.hf.space.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _private_host(base: str) -> str | None:
    """`host:port` where the address is this machine or a private network, else None."""
    parts = urlsplit(base)
    host = parts.hostname or ""
    try:
        private = ipaddress.ip_address(host).is_private
    except ValueError:
        private = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{f'[{host}]' if ':' in host else host}:{port}" if private else None
