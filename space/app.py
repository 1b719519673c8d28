"""Entry of the Space: `python space/app.py`, `python -m space.app`, or imported by whoever launches `demo`.

The zygote starts before Gradio is imported, so that the two load side by side.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if not __package__:
    # run as a script: `import mcp` must find the SDK and not the module beside this one
    _HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

from executor.errors import SettingsError
from executor.local import LocalBackend
from executor.settings import Settings
from space.state import with_store
from space.tools import tool_table
from space.upkeep import keep_one_heap

if TYPE_CHECKING:
    from space.server import SpaceBlocks


def _build() -> SpaceBlocks:
    """The page with everything behind it. Exits with code 2 and a sentence where a setting cannot be used."""
    keep_one_heap()
    try:
        settings = with_store(Settings.from_env())
        tools = tool_table(settings)
        backend = LocalBackend(settings)
    except SettingsError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"WORK_DIR: {error.filename or 'the temporary folder'} cannot be used ({error.strerror}).")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from space.server import Space  # noqa: PLC0415 - takes seconds; the zygote loads beside it

    return Space(settings, backend, tools).page()


def _give_up(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    raise SystemExit(2)


demo = _build()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    demo.launch()


if __name__ == "__main__":
    main()
