"""Signed links: a token in an address that gives the right to one thing of one session, for some time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from executor.settings import Settings

FILES_PATH = "/files/"
UPLOAD_PATH = "/upload/"
SESSION_PARAMETER = "session"

Kind = Literal["file", "zip", "upload", "folder", "page", "notebook", "export"]
"""What a link is for: reading one file, reading all as a zip, writing one file, writing any file, the page, reading
what ran as a notebook, reading all files and that notebook as a zip."""

MAX_TOKEN_CHARS = 2048
_KINDS: dict[Kind, int] = {"file": 1, "zip": 2, "upload": 3, "folder": 4, "page": 5, "notebook": 6, "export": 7}
_NAMES: dict[int, Kind] = {number: kind for kind, number in _KINDS.items()}
_HEAD = struct.Struct("!BI12s")  # kind, expiry in seconds since 1970, handle
_MAC_BYTES = 16  # RFC 2104, section 5: half of SHA-256 is enough, and a model has to copy what we print
_REMEMBERED = 10_000


class LinkRefused(ValueError):
    """A link that cannot be used; the sentence says why. `gone` where it was good once, `early` where it may be good
    once the server has started."""

    def __init__(self, sentence: str, *, gone: bool = False, early: bool = False) -> None:
        super().__init__(sentence)
        self.gone = gone
        self.early = early


@dataclass(frozen=True, slots=True)
class Grant:
    """The session that a link speaks for, with all that the executor asks for to reach it."""

    owner: str
    conversation: str | None
    session_id: str


@dataclass(frozen=True, slots=True)
class Link:
    """What a token says: `path` is the file's for `file` and `upload`, empty otherwise; `expires` in seconds since
    1970."""

    kind: Kind
    grant: Grant
    path: str
    expires: float


class Links:
    """Makes and opens links. Nobody who has a token can change it, or learn from it whose session it is for or that
    session's id, which would open all of the session. Tokens end with the session, with `LINK_TTL`, and with the
    server unless `LINK_KEY` is set.

    `known` gives what there is to speak for now, of every session; None while that is not known yet.
    """

    def __init__(self, settings: Settings, known: Callable[[], Iterable[Grant] | None] = tuple) -> None:
        self._known = known
        self._lasting = bool(settings.link_key)
        self._ttl = settings.link_ttl
        secret = settings.link_key.encode() or secrets.token_bytes(32)
        self._key = hashlib.sha256(b"links of " + secret).digest()
        self._grants: OrderedDict[bytes, Grant] = OrderedDict()
        self.base = _base(settings)
        """The address that people reach us under, without a slash at its end; empty where it is not known."""
        self.page_note = (
            "On a private Space the link asks for a Hugging Face login." if self.base and settings.space_host else ""
        )
        """A sentence for whoever follows a link to the page, empty where there is nothing to say."""
        # files may come through a proxy that has a token, the page never
        self.note = "" if settings.public_base_url else self.page_note
        """The same for a link to a file."""

    # Making: each gives the path within our own site; `absolute` makes an address of it

    def file(self, grant: Grant, path: str) -> str:
        """Where the file can be read with GET."""
        return FILES_PATH + self._token("file", grant, path)

    def archive(self, grant: Grant) -> str:
        """Where the whole folder can be read as a zip."""
        return FILES_PATH + self._token("zip", grant)

    def notebook(self, grant: Grant) -> str:
        """Where what ran can be read as a Jupyter notebook."""
        return FILES_PATH + self._token("notebook", grant)

    def export(self, grant: Grant) -> str:
        """Where the whole folder and the notebook can be read as a zip."""
        return FILES_PATH + self._token("export", grant)

    def upload(self, grant: Grant, path: str) -> str:
        """Where this one file can be written with PUT or POST."""
        return UPLOAD_PATH + self._token("upload", grant, path)

    def folder(self, grant: Grant) -> str:
        """Where any file can be written with PUT or POST, its path given as parameter `name`, or be renamed."""
        return UPLOAD_PATH + self._token("folder", grant)

    def page(self, grant: Grant) -> str:
        """Where the page opens on this session."""
        return f"/?{SESSION_PARAMETER}={self._token('page', grant)}"

    def absolute(self, path: str) -> str | None:
        """The address of a path of ours; None where we do not know our own."""
        return f"{self.base}{path}" if self.base else None

    # Opening

    def open(self, token: str, *kinds: Kind) -> Link:
        """What the token gives the right to, which must be one of `kinds`. Raises LinkRefused."""
        if len(token) > MAX_TOKEN_CHARS:
            raise LinkRefused(
                "This link is too long to be one of ours. Copy it whole and unchanged, or ask for a new one."
            )
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error, ValueError):
            raw = b""
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        # the last character has bits that decode to nothing: a token is good in exactly one spelling
        genuine = hmac.compare_digest(mac, self._mac(body)) and _encoded(raw) == token
        if not genuine or len(body) < _HEAD.size:
            before = "under another LINK_KEY" if self._lasting else "before the server was restarted"
            raise LinkRefused(
                f"This link is not valid: it was changed on the way, or made {before}. Ask for a new one."
            )
        number, expires, handle = _HEAD.unpack_from(body)
        kind = _NAMES[number]
        if kind not in kinds:
            raise LinkRefused(f"This link is not made for this: it is for {_WORDS[kind]}.")
        if expires <= time.time():
            raise LinkRefused("This link has expired. Ask for a new one.", gone=True)
        return Link(kind, self._granted(handle), body[_HEAD.size :].decode("utf-8", "surrogatepass"), float(expires))

    def open_session(self, token: str) -> Grant:
        """The session that the page shall open, from the `session` parameter of its address. Raises LinkRefused."""
        return self.open(token, "page").grant

    # Inside

    def _token(self, kind: Kind, grant: Grant, path: str = "") -> str:
        handle = self._handle(grant)
        self._remember(handle, grant)
        head = _HEAD.pack(_KINDS[kind], int(time.time() + self._ttl), handle)
        body = head + path.encode("utf-8", "surrogatepass")
        return _encoded(body + self._mac(body))

    def _granted(self, handle: bytes) -> Grant:
        """The grant that a genuine token names. Raises LinkRefused where there is no such session (any more)."""
        if grant := self._grants.get(handle):
            return grant
        # made by a former server with our key, or long ago: the session may be there all the same
        known = self._known()
        if known is None:
            raise LinkRefused("The server is still starting. Try this link again in half a minute.", early=True)
        for grant in known:
            if self._handle(grant) == handle:
                self._remember(handle, grant)
                return grant
        raise LinkRefused("The session of this link has ended. Ask for a new link.", gone=True)

    def _handle(self, grant: Grant) -> bytes:
        """What stands for the grant in tokens: it can be made again from the grant, and the grant not from it."""
        named = "\0".join((grant.session_id, grant.owner, grant.conversation or "", str(grant.conversation is None)))
        return hmac.digest(self._key, b"session " + named.encode("utf-8", "surrogatepass"), "sha256")[:12]

    def _remember(self, handle: bytes, grant: Grant) -> None:
        self._grants[handle] = grant
        self._grants.move_to_end(handle)
        while len(self._grants) > _REMEMBERED:
            self._grants.popitem(last=False)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, b"link " + body, "sha256")[:_MAC_BYTES]


_WORDS: dict[Kind, str] = {
    "file": "reading one file",
    "zip": "reading all files",
    "upload": "writing one file",
    "folder": "writing files",
    "page": "opening the page",
    "notebook": "reading the notebook",
    "export": "reading all files and the notebook",
}


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _base(settings: Settings) -> str:
    """As set, else as Hugging Face says, else this machine's own where we listen on nothing but it."""
    if settings.public_base_url:
        return settings.public_base_url.rstrip("/")
    if settings.space_host:
        return f"https://{settings.space_host}"
    if settings.bind_host in ("127.0.0.1", "localhost") and settings.port:
        return f"http://{settings.bind_host}:{settings.port}"
    return ""
