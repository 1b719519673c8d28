"""The tools that run code, and the table of all tools by name. Knows nothing of MCP itself."""

from __future__ import annotations

from typing import Any

from executor import Settings
from executor.errors import SettingsError
from space import schemas
from space.content import Answer
from space.export_tools import export_tools
from space.file_tools import file_tools
from space.identity import Caller
from space.package_tools import package_tools
from space.page_tools import page_tools
from space.run_tools import execute, run_tools
from space.session_tools import session_tools
from space.toolbox import DESTROYS, SESSION_ID, Arguments, Tool, Toolbox


async def execute_python_code(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    return await execute(box, caller, values["code"], "python", values)


async def execute_javascript_code(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    return await execute(box, caller, values["code"], "javascript", values)


async def execute_bash_command(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    return await execute(box, caller, values["command"], "bash", values)


def tool_table(settings: Settings) -> dict[str, Tool]:
    """The tools by name, in the order in which a client shows them; `TOOLS` limits them.

    Raises SettingsError for a name in `TOOLS` that no tool has.
    """
    every = (
        *_execution_tools(settings),
        *run_tools(settings),
        *session_tools(),
        *file_tools(settings),
        *package_tools(settings),
        *page_tools(),
        *export_tools(),
    )
    tools = {tool.name: tool for tool in every}
    for name in settings.tools:
        if name not in tools:
            raise SettingsError(
                f"TOOLS={','.join(settings.tools)!r}: no tool is called {name!r}; give names out of {', '.join(tools)}."
            )
    return {name: tool for name, tool in tools.items() if not settings.tools or name in settings.tools}


def _execution_tools(settings: Settings) -> tuple[Tool, ...]:
    timeout = {
        "type": "number",
        "description": "Seconds until the code is stopped. "
        f"After {settings.soft_wait:g} it goes on without this call; then use get_execution_result.",
        "exclusiveMinimum": 0,
        "maximum": settings.max_execution_timeout,
        "default": settings.execution_timeout,
    }

    def tool(name: str, title: str, argument: str, words: str, description: str, run: Any) -> Tool:
        return Tool(
            name=name,
            title=title,
            description=description,
            properties={
                argument: {"type": "string", "description": words},
                "session_id": SESSION_ID,
                "timeout": timeout,
            },
            required=(argument,),
            output=schemas.EXECUTION,
            run=run,
            hints=DESTROYS,
            shown=True,
        )

    return (
        tool(
            "execute_python_code",
            "Run Python",
            "code",
            "One notebook cell.",
            "Run Python in a live IPython notebook. Variables, imports and functions last from call to call, also "
            "after an error: fix the cell and run only that again. Ready without import: np, pd, plt, json, math, "
            "random, base64, io, datetime, timedelta. Installed: scipy, sklearn, seaborn, PIL, openpyxl, pypdf, docx. "
            "The last expression's value is shown; top-level await and % magics work. Every open matplotlib figure "
            "comes back as a picture by itself and is kept full-size in plots/. Read and write files by relative "
            "path: one folder for all three languages.",
            execute_python_code,
        ),
        tool(
            "execute_javascript_code",
            "Run JavaScript",
            "code",
            "One REPL cell.",
            "Run JavaScript in a live Node REPL. Variables last from call to call, const may be declared again, "
            "top-level await works, require and import load Node's modules and files of the session's folder. The "
            "last value is shown.",
            execute_javascript_code,
        ),
        tool(
            "execute_bash_command",
            "Run bash",
            "command",
            "One or more lines of bash.",
            "Run a command in the session's one bash. cd, export and functions last. Works in the same folder as "
            "Python and JavaScript; no root.",
            execute_bash_command,
        ),
    )
