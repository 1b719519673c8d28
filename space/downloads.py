"""Links to the files of a session, as they are put into an answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from executor.results import ExecutionResult
from space.content import Answer
from space.links import Grant, Links

MAX_LINKS = 10
"""Links in one answer: a model pays for each; `download_file` gives any other."""


@dataclass(frozen=True, slots=True)
class Downloads:
    """Addresses of files by path, and the lines that tell of them; both are empty where our own is not known."""

    addresses: dict[str, str]
    text: str

    @property
    def chars(self) -> int:
        """What they take of an answer's budget."""
        return len(self.text) + 1 if self.text else 0

    def put_into(self, answer: Answer) -> Answer:
        """The answer with the links: in its text before the line with the session, and as `url` of its `files`."""
        if not self.addresses:
            return answer
        *first, text = answer.texts
        body, line_end, last = text.rpartition("\n")
        joined = "\n".join((body, self.text, last) if line_end else (self.text, text))
        structured = answer.structured
        if structured is not None and "files" in structured:
            files = [
                {**file, "url": self.addresses[file["path"]]} if file["path"] in self.addresses else file
                for file in structured["files"]
            ]
            structured = {**structured, "files": files}
        return replace(answer, texts=(*first, joined), structured=structured)


def downloads(links: Links, grant: Grant, paths: Iterable[str], *, room: int) -> Downloads:
    """Links to files, the first `MAX_LINKS` of them, in at most `room` characters.

    A name that is not all printable has none: the guest gives the names, and must not write lines of its own here.
    """
    head = "Download links for the user" + (f" ({links.note.rstrip('.')})" if links.note else "") + ":"
    addresses: dict[str, str] = {}
    lines = [head]
    room -= len(head)
    for path in paths:
        if not path.isprintable():
            continue
        address = links.absolute(links.file(grant, path))
        if address is None or len(addresses) == MAX_LINKS:
            break
        line = f"{path}: {address}"
        room -= len(line) + 1
        if room < 0:
            break
        addresses[path] = address
        lines.append(line)
    return Downloads(addresses, "\n".join(lines)) if addresses else Downloads({}, "")


def downloads_of(links: Links, grant: Grant, result: ExecutionResult, *, room: int) -> Downloads:
    """Links to what code has made, pictures left out that the client shows by itself."""
    drawn = {output.picture.path for output in result.outputs if output.picture is not None}
    return downloads(links, grant, (file.path for file in result.files if file.path not in drawn), room=room)
