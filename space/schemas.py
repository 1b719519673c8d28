"""Output schemas of the tools: what `structuredContent` holds."""

from __future__ import annotations

from typing import Any

from executor.results import LANGUAGES, STATUSES

Schema = dict[str, Any]


def _object(properties: Schema, required: tuple[str, ...], description: str = "") -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "required": list(required)}
    if description:
        schema["description"] = description
    return schema


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "description": "ISO 8601, UTC"}
_TEXT_OR_NULL = {"type": ["string", "null"]}

FILE = _object(
    {"path": _TEXT, "size": _COUNT, "modified": _TIME, "change": {"enum": ["new", "changed"]}, "url": _TEXT},
    ("path", "size", "modified"),
    "path relative to the session's folder, size in bytes",
)

_PICTURE = {
    **_object(
        {"path": _TEXT_OR_NULL, "type": _TEXT, "size": _COUNT, "width": _COUNT, "height": _COUNT, "alt": _TEXT},
        ("path", "type", "size"),
        "path of the full-size file; type, bytes and pixels of the one that was sent",
    ),
    "type": ["object", "null"],
}

_ERROR = {
    **_object(
        {"type": _TEXT, "message": _TEXT, "line": {"type": ["integer", "null"]}, "traceback": _TEXT, "hint": _TEXT},
        ("type", "message"),
    ),
    "type": ["object", "null"],
}

EXECUTION = _object(
    {
        "success": {"type": "boolean"},
        "status": {"enum": list(STATUSES)},
        "stdout": _TEXT,
        "stderr": _TEXT,
        "return_code": {"type": ["integer", "null"]},
        "execution_time": {"type": "number", "description": "seconds"},
        "session_id": _TEXT,
        "execution_id": _TEXT,
        "language": {"enum": list(LANGUAGES)},
        "plot": {"type": "null", "description": "always null: pictures are image blocks, described in outputs"},
        "outputs": _list(
            _object(
                {"data": {"type": "object"}, "is_result": {"type": "boolean"}, "picture": _PICTURE},
                ("data", "is_result"),
                "a displayed value by MIME type",
            )
        ),
        "files": _list(FILE),
        "error": _ERROR,
        "violations": _list(
            _object(
                {"rule": _TEXT, "message": _TEXT, "line": _COUNT, "column": _COUNT, "layer": _TEXT},
                ("rule", "message"),
            )
        ),
        "truncated": {"type": "boolean"},
        "notices": _list(_TEXT),
        "variables": _list(
            _object(
                {"name": _TEXT, "type": _TEXT, "summary": _TEXT, "change": {"enum": ["new", "changed"]}},
                ("name", "type"),
            )
        ),
    },
    ("success", "status", "stdout", "stderr", "return_code", "execution_time", "session_id", "execution_id"),
)

SESSION = _object({"session_id": _TEXT, "created_at": _TIME}, ("session_id", "created_at"))

SESSIONS = _object(
    {
        "sessions": _list(
            _object(
                {
                    "session_id": _TEXT,
                    "state": {"enum": ["live", "parked"], "description": "a parked one comes back with its next call"},
                    "created_at": _TIME,
                    "last_used": _TIME,
                    "executions": _COUNT,
                    "running": _TEXT_OR_NULL,
                    "snapshot_at": _TIME,
                    "snapshot_bytes": _COUNT,
                    "names": _list(_TEXT),
                },
                ("session_id", "created_at"),
            )
        ),
        "count": _COUNT,
        "timestamp": _TIME,
        "note": _TEXT,
    },
    ("sessions", "count", "timestamp"),
)

HISTORY = _object(
    {
        "session_id": _TEXT,
        "created_at": _TIME,
        "history": _list(
            _object(
                {
                    "code": _TEXT,
                    "language": {"enum": list(LANGUAGES)},
                    "result": {"type": "object"},
                    "timestamp": _TIME,
                },
                ("code", "language", "result", "timestamp"),
            )
        ),
        "omitted": {"type": "integer", "description": "older entries that did not fit"},
    },
    ("session_id", "created_at", "history"),
)

SYSTEM = _object(
    {
        "python_version": _TEXT,
        "available_packages": {"type": "object", "description": "name to version", "additionalProperties": _TEXT},
        "execution_limits": {"type": "object"},
        "supported_languages": _list(_TEXT),
        "runtimes": {"type": "object"},
        "sandbox": {"type": "object"},
        "files": _TEXT,
    },
    ("python_version", "available_packages", "execution_limits", "supported_languages"),
)

CLOSED = _object({"session_id": _TEXT, "closed": {"type": "boolean"}}, ("session_id", "closed"))

INTERRUPTED = _object({"session_id": _TEXT, "interrupted": {"type": "boolean"}}, ("session_id", "interrupted"))

UPLOADED = _object(
    {
        "session_id": _TEXT,
        "path": _TEXT,
        "size": {"type": "integer", "description": "bytes of the file, or received so far"},
        "complete": {"type": "boolean"},
    },
    ("session_id", "path", "size", "complete"),
)

FILES = _object(
    {
        "session_id": _TEXT,
        "files": _list(FILE),
        "omitted": {"type": "integer", "description": "files that did not fit"},
        "zip_url": {"type": "string", "description": "all of them in one download"},
    },
    ("session_id", "files"),
)

CONTENT = _object(
    {
        "session_id": _TEXT,
        "path": _TEXT,
        "size": {"type": "integer", "description": "bytes of the whole file"},
        "offset": _COUNT,
        "length": {"type": "integer", "description": "bytes in this answer"},
        "next_offset": {"type": ["integer", "null"], "description": "where the rest begins; null at the end"},
        "encoding": {"enum": ["text", "base64"]},
        "content": _TEXT,
        "url": {"type": "string", "description": "download of the whole file"},
    },
    ("session_id", "path", "size", "offset", "length", "next_offset", "encoding", "content"),
)

PAGE = _object(
    {"session_id": _TEXT, "url": _TEXT, "upload_url": _TEXT, "expires": _TIME},
    ("session_id", "url", "upload_url", "expires"),
)

DELETED = _object({"session_id": _TEXT, "path": _TEXT, "deleted": {"type": "boolean"}}, ("path", "deleted"))

EXPORT = _object(
    {"session_id": _TEXT, "format": {"enum": ["ipynb", "zip"]}, "url": _TEXT, "cells": _COUNT},
    ("session_id", "format", "url", "cells"),
)

VARIABLES = _object(
    {
        "session_id": _TEXT,
        "variables": _list(_object({"name": _TEXT, "type": _TEXT, "summary": _TEXT}, ("name", "type"))),
    },
    ("session_id", "variables"),
)
