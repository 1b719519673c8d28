"""The tools for files of a session: upload, list, download, delete."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections.abc import AsyncIterator
from typing import Any

from executor import Settings
from executor.errors import InvalidRequest, NoSuchFile
from executor.results import FileInfo
from space import schemas
from space.content import Answer, clean, file_data, json_answer, size_words
from space.downloads import Downloads, downloads
from space.identity import Caller
from space.toolbox import DESTROYS, READS, SESSION_ID, Arguments, Tool, Toolbox, session_note

_PATH: dict[str, Any] = {"type": "string", "description": "Relative to the session's folder."}
_LINK_CHARS = 4_000  # the longest path and its token
_OVERHEAD_CHARS = 1_000  # what an answer says beside a file's content


async def upload_file(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    url = values.get("url")
    if url and values["content"]:
        raise InvalidRequest("give content or url, not both.")
    data = _decoded(values["content"] or "", values["encoding"])
    offset, final, path = values["offset"], values["final"], values["path"]
    if url and (offset or not final):
        raise InvalidRequest("a file from a url comes in one call; leave out offset and final.")
    named = values["session_id"]
    if not named and caller.conversation is None:
        if offset:
            raise InvalidRequest("session_id is needed for every part but the first; the first part's answer has it.")
        session_id = (await box.executor.create_session(owner=caller.owner, conversation=None)).id
    else:
        session_id = await box.session_id(caller, named)
        # raises before anything is kept for a session that is not the caller's
        box.executor.session(session_id, owner=caller.owner, conversation=caller.conversation)
    key = (f"{caller.owner}\n{caller.conversation or ''}", session_id, path)
    if url:
        received = 0
        chunks = box.fetcher.fetch(url)
    elif final and offset == 0:
        received = len(data)
        chunks = _one(data)
    else:
        received = await box.uploads.add(key, offset, data)
        chunks = box.uploads.finish(key) if final else _one(b"")
    note = session_note(caller, named)
    if not final:
        text = f"{path}: {size_words(received)} so far; send the next part with offset {received}."
    else:
        info = await box.executor.put_file(
            session_id, path, chunks, owner=caller.owner, conversation=caller.conversation
        )
        received, path = info.size, info.path
        text = f"{path}: {size_words(received)} written."
    return Answer(
        texts=(clean(f"{text}\nsession_id: {session_id}{note}"),),
        structured=clean({"session_id": session_id, "path": path, "size": received, "complete": final}),
        session_id=session_id,
    )


async def list_files(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = await box.session_id(caller, values["session_id"])
    files = await box.executor.list_files(session_id, owner=caller.owner, conversation=caller.conversation)
    shown: list[dict[str, Any]] = []
    room = box.settings.max_result_chars - _OVERHEAD_CHARS
    for file in files:
        entry = file_data(file)
        room -= len(json.dumps(entry, ensure_ascii=False)) + 2
        if room < 0:
            break
        shown.append(entry)
    data: dict[str, Any] = {"session_id": session_id, "files": shown}
    if len(shown) < len(files):
        data["omitted"] = len(files) - len(shown)
    if files and (address := box.links.absolute(box.links.archive(box.grant(caller, session_id)))):
        data["zip_url"] = address
    return json_answer(data, session_id=session_id)


async def download_file(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = await box.session_id(caller, values["session_id"])
    path, offset = values["path"], values["offset"]
    info = await _info(box, caller, session_id, path)
    if offset > info.size:
        raise InvalidRequest(f"{path} has {size_words(info.size)}; offset {offset} is behind its end.")
    link = downloads(box.links, box.grant(caller, session_id), [info.path], room=_LINK_CHARS)
    room = max(256, box.settings.max_result_chars - _OVERHEAD_CHARS - link.chars)
    length = min(values["length"] or info.size, info.size - offset, room)
    if link.text and values["encoding"] == "auto" and info.size > room and not offset and not values["length"]:
        return _link_only(session_id, info, link, "too large for one answer")
    raw = await _read(box, caller, session_id, path, offset, length)
    whole = offset + len(raw) >= info.size
    text = _as_text(raw, whole) if values["encoding"] != "base64" else None
    if text is None:
        if values["encoding"] == "text":
            raise InvalidRequest(f"{path} is no UTF-8 text at byte {offset}; download it with encoding base64.")
        if link.text and values["encoding"] == "auto" and not offset and not values["length"]:
            return _link_only(session_id, info, link, "no text")
        # three bytes become four characters, and a part must end on such a three to be joined with the next
        fits = room * 3 // 4 // 3 * 3
        raw = raw[:fits]
        content, encoding, length = base64.b64encode(raw).decode(), "base64", len(raw)
    else:
        content, encoding, length = text, "text", len(text.encode())
    end = offset + length
    rest = None if end >= info.size else end
    about = (
        f"{path}: all {size_words(info.size)}"
        if offset == 0 and rest is None
        else (f"{path}: bytes {offset} to {end} of {info.size}")
    )
    if encoding == "base64":
        about += ", base64"
    if rest is not None:
        about += f"; go on with offset {rest}"
    structured = {
        "session_id": session_id,
        "path": path,
        "size": info.size,
        "offset": offset,
        "length": length,
        "next_offset": rest,
        "encoding": encoding,
        "content": content,
    }
    # the content is a block of its own, so that it can be taken byte for byte
    if link.addresses:
        structured["url"] = link.addresses[info.path]
    texts = (content, clean(f"{about}\nsession_id: {session_id}"))
    answer = Answer(texts=texts if content else texts[1:], structured=clean(structured), session_id=session_id)
    return link.put_into(answer)


def _link_only(session_id: str, info: FileInfo, link: Downloads, why: str) -> Answer:
    """A file that is better given to the person than read by the model."""
    said = f"{info.path}: {size_words(info.size)}, {why}. To read it here name an encoding, offset or length."
    structured = {
        "session_id": session_id,
        "path": info.path,
        "size": info.size,
        "offset": 0,
        "length": 0,
        "next_offset": None,
        "encoding": "base64",
        "content": "",
        "url": link.addresses[info.path],
    }
    texts = (clean(f"{said}\nsession_id: {session_id}"),)
    return link.put_into(Answer(texts=texts, structured=clean(structured), session_id=session_id))


async def delete_file(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = await box.session_id(caller, values["session_id"])
    path = values["path"]
    await box.executor.delete_file(session_id, path, owner=caller.owner, conversation=caller.conversation)
    return Answer(
        texts=(f"{path} is deleted.\nsession_id: {session_id}",),
        structured={"session_id": session_id, "path": path, "deleted": True},
        session_id=session_id,
    )


def file_tools(settings: Settings) -> tuple[Tool, ...]:
    """The tools for files."""
    offset = {"type": "integer", "minimum": 0, "default": 0}
    by_url = settings.allow_url_upload
    return (
        Tool(
            name="upload_file",
            title="Upload file",
            description="Write a file into the session's folder, replacing one of that name. A large file goes in "
            f"several calls of at most 5 MB, up to {settings.max_upload_mb} MB: offset is the number of bytes sent "
            "before, final is false until the last.",
            properties={
                "path": _PATH,
                "content": {"type": "string"},
                **({"url": {"type": "string", "description": "Fetch it from there instead."}} if by_url else {}),
                "encoding": {"type": "string", "enum": ["text", "base64"], "default": "text"},
                "offset": offset,
                "final": {"type": "boolean", "default": True},
                "session_id": SESSION_ID,
            },
            required=("path",) if by_url else ("path", "content"),
            output=schemas.UPLOADED,
            run=upload_file,
            hints=DESTROYS,
        ),
        Tool(
            name="list_files",
            title="List files",
            description="List the files in the session's folder.",
            properties={"session_id": SESSION_ID},
            output=schemas.FILES,
            run=list_files,
            hints=READS,
        ),
        Tool(
            name="download_file",
            title="Read file",
            description="Read a file of the session and get a download link for the user. Text comes as it is; of what "
            "is binary or large the link alone, or with encoding base64, offset or length its bytes.",
            properties={
                "path": _PATH,
                "encoding": {"type": "string", "enum": ["auto", "text", "base64"], "default": "auto"},
                "offset": {**offset, "description": "First byte."},
                "length": {"type": "integer", "minimum": 1, "description": "Bytes; default: as many as fit."},
                "session_id": SESSION_ID,
            },
            required=("path",),
            output=schemas.CONTENT,
            run=download_file,
            hints=READS,
        ),
        Tool(
            name="delete_file",
            title="Delete file",
            description="Delete a file, or a folder with all it holds.",
            properties={"path": _PATH, "session_id": SESSION_ID},
            required=("path",),
            output=schemas.DELETED,
            run=delete_file,
            hints=DESTROYS,
        ),
    )


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _decoded(content: str, encoding: str) -> bytes:
    if encoding == "text":
        return content.encode()
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("content is not base64; send it without a data: prefix, or with encoding text.") from None


async def _info(box: Toolbox, caller: Caller, session_id: str, path: str) -> FileInfo:
    """The file's size; where there is none, what is there instead."""
    try:
        return await box.executor.file_info(session_id, path, owner=caller.owner, conversation=caller.conversation)
    except NoSuchFile as error:
        files = await box.executor.list_files(session_id, owner=caller.owner, conversation=caller.conversation)
        there = ", ".join(file.path for file in files[:20]) or "nothing yet"
        raise NoSuchFile(
            f"{error} It holds {there}. The user can put a file in on the page that open_session_page links to."
        ) from None


async def _read(box: Toolbox, caller: Caller, session_id: str, path: str, offset: int, length: int) -> bytes:
    parts = [
        chunk
        async for chunk in box.executor.get_file(
            session_id, path, owner=caller.owner, conversation=caller.conversation, offset=offset, length=length
        )
    ]
    return b"".join(parts)


def _as_text(raw: bytes, whole: bool) -> str | None:
    """`raw` as UTF-8 text, None if it is none; half a character at the end of a part is left for the next one."""
    if b"\0" in raw:
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(raw, final=whole)
    except UnicodeDecodeError:
        return None
