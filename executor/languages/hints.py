"""What to do next after an error whose cause is known: one sentence or two, made inside the sandbox."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

MAX_HINT = 600
"""Characters of a hint."""
MAX_LISTED = 10
"""Names that a hint lists."""
MAX_SEEN = 2_000
"""Entries of the session's folder that are looked at."""
NO_NETWORK = "There is no network in this session; upload files or install packages through the tools instead."

_PACKAGES = {
    "attr": "attrs",
    "Bio": "biopython",
    "bs4": "beautifulsoup4",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "igraph": "python-igraph",
    "jwt": "pyjwt",
    "Levenshtein": "levenshtein",
    "magic": "python-magic",
    "OpenSSL": "pyopenssl",
    "osgeo": "gdal",
    "PIL": "pillow",
    "pptx": "python-pptx",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "usb": "pyusb",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
"""Packages whose modules have another name."""
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
_HIDDEN = frozenset({"node_modules", "__pycache__"})
_CODE_FILES = (".py", ".pyc")
_scandir = os.scandir


def hint_for(error: BaseException, folder: Path | None) -> str:
    """The hint for `error` in a session whose files lie in `folder`, "" where none is known. Never raises."""
    try:
        text = _hint(error, folder)
    except Exception:
        return ""  # exceptions are guest objects, any attribute of theirs may raise
    return text if len(text) <= MAX_HINT else text[: MAX_HINT - 1] + "…"


def _hint(error: BaseException, folder: Path | None) -> str:
    for each in _chain(error):
        if isinstance(each, ModuleNotFoundError):
            return _missing_module(each, folder)
        if isinstance(each, socket.gaierror) or (isinstance(each, OSError) and each.errno in _UNREACHABLE):
            return NO_NETWORK
        if isinstance(each, OSError | ImportError) and _raised_in(each, "multiprocessing/synchronize.py"):
            return (
                "Locks, queues and pools of multiprocessing need semaphores, which this session does not have; use "
                "threads (concurrent.futures.ThreadPoolExecutor), or multiprocessing.Process with a Pipe."
            )
        if isinstance(each, FileNotFoundError):
            return _missing_file(each, folder)
        if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT):
            return "The session's folder is full; delete files that are not needed, then run the cell again."
        if isinstance(each, MemoryError):
            return (
                "It does not fit into the session's memory: delete large variables (del name), read in parts "
                "(chunksize, usecols) or use smaller types (float32, category)."
            )
        if isinstance(each, ValueError) and "requires nbformat" in str(each)[:200]:
            return (
                "Let the figure itself be the cell's last value instead of calling show(), or use "
                'install_packages(["nbformat"]) and import plotly in a new session.'
            )
        if isinstance(each, KeyError) and (words := _columns(each)):
            return words
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it wraps, and what it was caused by, at most ten."""
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) < 10:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        former = (getattr(each, "reason", None), each.__cause__, each.__context__)
        waiting += [other for other in former if isinstance(other, BaseException)]


def _missing_module(error: ModuleNotFoundError, folder: Path | None) -> str:
    name = error.name
    if not isinstance(name, str) or not name.isascii() or len(name) > 100:
        return ""
    top = name.partition(".")[0]
    if not top.isidentifier() or top in sys.modules or (top != name and top in sys.stdlib_module_names):
        return ""  # a part of something that is there
    if top in sys.stdlib_module_names:
        return f"{top} is left out of this Python and cannot be installed."
    near = get_close_matches(top, sys.stdlib_module_names, n=1, cutoff=0.85)
    meant = f" Or is {near[0]} meant?" if near else ""
    own = [path for path in files_in(folder) if Path(path).name == f"{top}.py"]
    if own:
        return f'{own[0]} is there: put its folder on the path first, sys.path.insert(0, "{Path(own[0]).parent}").'
    package = _PACKAGES.get(top, top)
    return f'install_packages(["{package}"]) makes it importable in this session, if there is such a package.{meant}'


def _missing_file(error: FileNotFoundError, folder: Path | None) -> str:
    name = error.filename
    name = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    if _raised_in(error, "/subprocess.py"):
        if name and "/" not in name:
            return f"The program {name[:80]} is not installed here; use a Python package for it instead."
        return ""
    there = files_in(folder)
    wanted = Path(name).name
    if exact := [path for path in there if Path(path).name == wanted]:
        return f"It is there as {_listed(exact)}; paths are relative to the session's folder."
    way = "open_session_page gives a person a page to put files in, upload_file takes small ones."
    if not there:
        return f"The session's folder holds no files yet; {way}"
    names = {Path(path).name.lower(): path for path in reversed(there)}
    near = [names[match] for match in get_close_matches(wanted.lower(), names, n=MAX_LISTED, cutoff=0.5)]
    rest = [path for path in there if path not in near]
    return f"The session's folder has: {_listed([*near, *rest])}. For others, {way}"


def files_in(folder: Path | None) -> list[str]:
    """Paths of the session's files relative to `folder`, nearest to it first, of at most `MAX_SEEN` entries."""
    found: list[str] = []
    waiting = [] if folder is None else [""]
    seen = 0
    while waiting:
        below = waiting.pop(0)
        try:
            with _scandir(f"{folder}/{below}") as entries:
                for entry in entries:
                    if (seen := seen + 1) > MAX_SEEN:
                        return sorted(found, key=lambda path: (path.count("/"), path))
                    if entry.name.startswith(".") or entry.name in _HIDDEN:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{below}{entry.name}/")
                    else:
                        found.append(f"{below}{entry.name}")
        except OSError:
            continue
    return sorted(found, key=lambda path: (path.count("/"), path))


def _listed(names: list[str]) -> str:
    shown = ", ".join(name if len(name) <= 80 else name[:79] + "…" for name in names[:MAX_LISTED])
    return shown + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def _raised_in(error: BaseException, end: str) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.endswith(end)


def _columns(error: KeyError) -> str:
    """The columns of the DataFrame that was asked for another one."""
    pandas: Any = sys.modules.get("pandas")
    trace = error.__traceback__
    while pandas is not None and trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename.endswith("/pandas/core/frame.py"):
            table: Any = frame.f_locals.get("self")
            if type(table) is pandas.DataFrame:
                names = [str(name) for name in table.columns[:200]]
                wanted = str(error.args[0]) if error.args else ""
                near = get_close_matches(wanted, names, n=3, cutoff=0.5)
                return f"The columns are: {_listed([*near, *(name for name in names if name not in near)])}."
        trace = trace.tb_next
    return ""


_NODE_MODULE = re.compile(r"Cannot find (?:module|package) '((?:@[\w.-]+/)?\w[\w.-]*)(?:/[^']*)?'")
_NODE_FILE = re.compile(r"ENOENT: no such file or directory, \w+ '([^']{1,80})")
_NODE_NETWORK = re.compile(r"\b(?:EAI_AGAIN|ENOTFOUND|ENETUNREACH|EHOSTUNREACH)\b")
_BASH_COMMAND = re.compile(r"(?:^|: )([\w.+-]{1,60}): command not found", re.MULTILINE)
_BASH_NETWORK = re.compile(r"Could not resolve host|Temporary failure in name resolution|Network is unreachable")
_LOOKED_AT = 4_000
"""Characters of a text that are searched."""


def javascript_hint(message: str, traceback: str) -> str:
    """The hint for an error of node's, by its words; "" where none is known."""
    if match := _NODE_MODULE.search(message[:_LOOKED_AT]):
        return f'install_packages(["{match[1]}"], language="javascript") makes it loadable, if there is such a package.'
    if match := _NODE_FILE.search(message[:_LOOKED_AT]):
        return (
            f"There is no {match[1]}: paths are relative to the session's folder, list_files shows what it holds. "
            "open_session_page gives a person a page to put files in, upload_file takes small ones."
        )
    return NO_NETWORK if _NODE_NETWORK.search(traceback[:_LOOKED_AT]) else ""


def bash_hint(stderr: str) -> str:
    """The hint for a failed cell of bash, by the end of what it wrote to stderr; "" where none is known."""
    text = stderr[-_LOOKED_AT:]
    if names := list(dict.fromkeys(_BASH_COMMAND.findall(text))):
        return (
            f"Not installed here: {_listed(names)}. Programs cannot be added (no root); what Python or Node packages "
            "can do comes with install_packages."
        )
    return NO_NETWORK if _BASH_NETWORK.search(text) else ""


def timeout_hint(seconds: float, most: float) -> str:
    """The hint for a cell that its time limit stopped."""
    if seconds < most:
        return f"Pass a longer timeout (at most {most:g} s), or do less in one cell."
    return "No longer timeout is allowed here: do less in one cell."
