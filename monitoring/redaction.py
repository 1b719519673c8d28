"""Redaction: keeps secrets out of everything that is printed, by key, by known value and by shape."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, Self

from executor.settings import SECRET, Settings

REDACTED = "[redacted]"

_SECRET_KEY = re.compile(
    r"authori[sz]ation|cookie|token|secret|passw|passphrase|credential|signature|salt|(?:api|access|admin|metrics|private)[-_]?key",
    re.IGNORECASE,
)
_ENVIRONMENT_KEY = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|SALT|(?:^|_)KEY(?:$|_)|_PAT$", re.IGNORECASE)
_SHORTEST_KNOWN = 4
_SHORTEST_FROM_ENVIRONMENT = 8  # `AUTH_MODE=none` must not blank every "none"
_DEPTH = 8

# Shapes of secrets whose value we cannot know. Each comes with the literals one of which must be there (in lower case)
# for the expression to have a chance: looking for a literal costs a hundredth of running the expression.
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (("hf_", "api_org_"), re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}"), REDACTED),
    (
        ("bearer", "basic"),
        re.compile(r"\b(bearer|basic)((?:\s|%20|\+)+)[A-Za-z0-9._~+/=%-]{6,}", re.I),
        rf"\1\2{REDACTED}",
    ),
    (  # header: value, 'key': 'value', (b'key', b'value'), KEY=value
        ("authori", "cookie", "token", "secret", "passw", "key", "credential", "signature", "salt"),
        re.compile(
            r"""((?<![\w-])[\w-]{0,60}(?:authori[sz]ation|cookie|token|secret|password|passwd|credential|signature|salt|
                 (?:api|access|admin|metrics|private)[-_]?key)
                 (?:\\?["']\s*[:,=]\s*(?:b?\\?["'])?|\s*[:=]\s*(?:b?\\?["'])?))
                ((?!\[redacted\])[^\s"'\\&#,;)}\]]{3,}(?:;\s*[^\s"'\\,;)}\]]+)*)""",
            re.I | re.X,
        ),
        rf"\1{REDACTED}",
    ),
    (  # parameters of addresses: ?key=…, &session_id=…, and ?session=…, which opens the page on a session
        ("?", "&"),
        re.compile(
            r"([?&](?:key|k|token|sig|signature|access_key|access_token|metrics_key|auth|session|session_id|sessionid)=)[^\s\"'&#]+",
            re.I,
        ),
        rf"\1{REDACTED}",
    ),
    (  # signed links carry their permission in the path
        ("/files/", "/upload/"),
        re.compile(r"(?<![\w.-])((?:https?://[^\s/\"']+)?/(?:files|upload)/)[A-Za-z0-9._~%=-]{12,}", re.I),
        rf"\1{REDACTED}",
    ),
    (  # user:password@host
        ("://",),
        re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+(@)"),
        rf"\1{REDACTED}\2",
    ),
)


class Redactor:
    """Replaces secrets in texts and in nested data; a text without any is returned as it is."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        """`known` are secret values; those under four characters are left out: they would blank ordinary words."""
        forms = {form for value in known if len(value) >= _SHORTEST_KNOWN for form in _forms(value)}
        self._known = tuple(sorted(forms, key=len, reverse=True))

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Self:
        """Knows the secrets among the settings, and environment variables that are named like secrets."""
        known = [getattr(settings, f.name) for f in fields(settings) if f.metadata.get(SECRET)]
        known += [
            value
            for key, value in environ.items()
            if _ENVIRONMENT_KEY.search(key) and len(value) >= _SHORTEST_FROM_ENVIRONMENT and "/" not in value[:1]
        ]
        return cls(known)

    def text(self, text: str) -> str:
        """`text` with every secret in it replaced."""
        for value in self._known:
            if value in text:
                text = text.replace(value, REDACTED)
        low = text.lower()
        for literals, shape, replacement in _SHAPES:
            for literal in literals:
                if literal in low:
                    text = shape.sub(replacement, text)
                    break
        return text

    def line(self, line: dict[str, Any]) -> dict[str, Any]:
        """`line` with every secret in it replaced: `data`, made quick for what nearly every line is, flat and clean."""
        texts = []
        for key, value in line.items():
            if isinstance(value, str):
                texts.append(value)
            elif not (value is None or isinstance(value, (bool, int, float))):
                break
            if is_secret_key(key):
                break
        else:
            together = "\0".join(texts)
            if self.text(together) == together:
                return line
        clean: dict[str, Any] = self.data(line)
        return clean

    def data(self, value: Any, depth: int = 0) -> Any:
        """`value` with every secret in it replaced: whole values under keys named like secrets, parts of texts."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth >= _DEPTH:
            return "[nested too deeply]"
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): REDACTED
                if is_secret_key(str(key)) and not _harmless(item)
                else self.data(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "backslashreplace"))
        if isinstance(value, (list, tuple, set, frozenset)):
            items = list(value)
            if len(items) == 2 and isinstance(items[0], (str, bytes)) and is_secret_key(_as_text(items[0])):
                return [_as_text(items[0]), REDACTED]  # an HTTP header as ASGI gives it
            return [self.data(item, depth + 1) for item in items]
        return self.text(str(value))


@lru_cache(maxsize=1024)
def is_secret_key(key: str) -> bool:
    """Whether what goes by this name (of a header, variable or field) is not to be printed."""
    return _SECRET_KEY.search(key) is not None


def _harmless(item: Any) -> bool:
    return item is None or isinstance(item, bool) or item in ("", "set", "not set")


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _forms(value: str) -> set[str]:
    """The value as it may stand in a line: plain, escaped by JSON or repr, quoted for an address."""
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote_plus(value),
    }
