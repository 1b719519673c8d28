"""The IPython shell of a Python worker, made before the fork: no history file, no thread, no terminal."""

from __future__ import annotations

import atexit
import linecache
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import PIL.Image
from IPython.core import page
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic_arguments import MagicArgumentParser
from IPython.utils.capture import capture_output
from matplotlib.figure import Figure
from traitlets import Type
from traitlets.config import Config

from executor.languages.bundles import markdown_table
from executor.languages.digests import MAX_ITEMS, print_frame
from executor.languages.displays import Displays
from executor.languages.traceback import Tracebacks, cell_name

MAX_RESULTS = 100
"""Values that `Out` remembers."""
MAX_INPUTS = 1_000_000
"""The largest number of a cell whose code `In` remembers: it has a place for each number below."""

_lines_of_files = linecache.cache
_popen = subprocess.Popen
_killpg = os.killpg


class Publisher(DisplayPublisher):
    """Sends what `display` is given."""

    def _setup_execution_tracking(self) -> None:
        """Not needed: nothing is kept here."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *args: Any,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        """Show a MIME bundle."""
        displays = cast(NotebookShell, self.shell).displays
        if displays is not None:
            displays.publish(data, display_id=(transient or {}).get("display_id"), update=update)

    def clear_output(self, wait: bool = False) -> None:
        """What was sent cannot be taken back."""


class Hook(DisplayHook):
    """Shows the value of a last expression."""

    def __call__(self, result: object = None) -> None:
        """Remember and show `result`, unless it is None."""
        shell = cast(NotebookShell, self.shell)
        if result is not None:
            shell.remember(result)
            if shell.displays is not None:
                shell.displays.show(result, is_result=True)


class Compiler(CachingCompiler):
    """Names code for the cell that it belongs to, and remembers its lines for tracebacks."""

    cell = 0
    _parts = 0
    _above = 0
    _own_next = False

    def begin(self, number: int) -> None:
        """Cell `number` starts."""
        self.cell, self._parts, self._above, self._own_next = number, 0, 0, False

    def is_own(self, above: int | None) -> None:
        """The next code is what the cell has below its first `above` lines, and not a part; None takes that back."""
        self._above, self._own_next = above or 0, above is not None

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        """The name of code that is about to be compiled; the lines of a part are remembered under it."""
        if self._own_next:
            self._own_next = False
            return cell_name(self.cell)
        return super().cache(transformed_code, number, raw_code)

    def ast_parse(self, source: str, filename: str = "<unknown>", symbol: str = "exec") -> Any:
        """The tree of `source`, its lines counted as in the cell where they are the cell's own."""
        above = self._above if filename == cell_name(self.cell) else 0
        return super().ast_parse("\n" * above + source, filename, symbol)

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """The next name for code that a cell runs by itself, through `get_ipython().run_cell` or a magic."""
        self._parts += 1
        return cell_name(self.cell, self._parts)


class Quitter:
    """`exit` and `quit`: end the cell, not the session."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"{self._name}() ends the cell; the session goes on."

    def __call__(self, code: object = None) -> None:
        """Raise SystemExit."""
        raise SystemExit(code)


class NotebookShell(InteractiveShell):
    """InteractiveShell with our displays, tracebacks and child processes."""

    display_pub_class: Any = Type(Publisher)
    displayhook_class: Any = Type(Hook)
    compiler_class: Any = Type(Compiler)
    compile: Any
    history_manager: Any

    displays: Displays | None = None
    ready_names: dict[str, Any] = {}  # noqa: RUF012  replaced as a whole
    complaints: list[BaseException] | None = None
    """Where errors of formatters are collected; None: they are printed."""

    def __init__(self, **kwargs: Any) -> None:
        self.tracebacks = Tracebacks()
        self._last: object = ""
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        atexit.unregister(self.atexit_operations)

    def init_ipython_dir(self, ipython_dir: str | None) -> None:
        """No folder: the zygote's would be shared by all sessions."""

    def init_profile_dir(self, profile_dir: object) -> None:
        """No profile, for the same reason."""

    def init_user_ns(self) -> None:
        """IPython's names and ours; `%reset` comes here, too."""
        super().init_user_ns()  # type: ignore[no-untyped-call]
        self.put_ready_names()

    def put_ready_names(self) -> None:
        """Let every cell find its names, unless it changes them."""
        self.user_ns.update(self.ready_names)
        self.user_ns_hidden.update(self.ready_names)

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Print an exception in short; those of formatters are collected."""
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if not isinstance(error, BaseException):
            return
        if self.complaints is not None:
            self.complaints.append(error)
        else:
            sys.stderr.write(self.tracebacks.describe(error, cell_name(self.compile.cell))["traceback"] + "\n")

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
        """Print a syntax error in short."""
        self.showtraceback()

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str, str]:
        """Nothing to enable: figures always come back as pictures."""
        return "inline", "inline"

    def enable_gui(self, gui: str | None = None) -> None:
        """There is no screen."""

    def ask_exit(self) -> None:
        """End the cell."""
        raise SystemExit(None)

    def show(self, value: object) -> None:
        """Show a figure or an image that `display` was given."""
        if self.displays is not None:
            self.displays.show(value)

    def remember_source(self, name: str, lines: list[str]) -> None:
        """Keep the lines of a cell's code for tracebacks."""
        _lines_of_files[name] = (sum(map(len, lines)), None, lines, name)
        self.tracebacks.sources[name] = lines

    def lines_above(self, code: str) -> int | None:
        """Lines of the running cell above the first of `code` that is not blank; None where `code` is not its end."""
        source = "".join(self.tracebacks.sources.get(cell_name(self.compile.cell), []))
        code = code.lstrip() and code[code.rfind("\n", 0, len(code) - len(code.lstrip())) + 1 :]
        if not code or not source.rstrip().endswith(code.rstrip()):
            return None
        return source.count("\n", 0, len(source.rstrip()) - len(code.rstrip()))

    def remember_input(self, number: int, code: str) -> None:
        """Keep a cell's code as `In[number]`."""
        if number > MAX_INPUTS:
            return
        for inputs in (self.history_manager.input_hist_parsed, self.history_manager.input_hist_raw):
            inputs.extend([""] * (number + 1 - len(inputs)))
            inputs[number] = code

    def remember(self, value: object) -> None:
        """Keep `value` as `_`, `_<number>` and in `Out`, as IPython does; a `_` of the user's own stays."""
        names, number = self.user_ns, self.compile.cell
        out = names.get("_oh")
        if value is out or not isinstance(out, dict):
            return
        if names.get("_", self._last) is self._last:
            names["___"], names["__"], names["_"] = names.get("__", ""), names.get("_", ""), value
            self._last = value
        names[f"_{number}"] = self.user_ns_hidden[f"_{number}"] = out[number] = value
        while len(out) > MAX_RESULTS:
            oldest = next(iter(out))
            del out[oldest]
            names.pop(f"_{oldest}", None)
            self.user_ns_hidden.pop(f"_{oldest}", None)

    def forget(self) -> None:
        """Drop what was remembered of the cells so far."""
        self._last = self.user_ns["_"] = self.user_ns["__"] = self.user_ns["___"] = ""
        self.user_ns["_oh"].clear()
        self.tracebacks.sources.clear()
        for inputs in (self.history_manager.input_hist_parsed, self.history_manager.input_hist_raw):
            inputs[:] = [""]

    def system(self, cmd: str) -> None:
        """`!cmd`: run it in a shell; its output goes where ours goes. The exit status is `_exit_code`."""
        self.run_command(self.var_expand(cmd, depth=1))  # type: ignore[no-untyped-call]

    def run_command(self, command: str) -> None:
        """Run `command` as it stands in a shell."""
        direct = sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
        sys.stdout.flush()
        sys.stderr.flush()
        pipe = None if direct else subprocess.PIPE
        child = _popen(
            ["/bin/bash" if Path("/bin/bash").exists() else "/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe and subprocess.STDOUT,
            process_group=0,
        )
        try:
            if child.stdout is not None:
                for line in child.stdout:
                    sys.stdout.write(line.decode("utf-8", "replace"))
            self.user_ns["_exit_code"] = child.wait()
        except BaseException:
            _end(child)
            raise
        finally:
            if child.stdout is not None:
                child.stdout.close()

    system_raw = system_piped = system


def _script_magic(shell: NotebookShell, name: str) -> Callable[[str, str], None]:
    """`%%bash` and `%%sh` without the thread that IPython starts for them, and to be interrupted."""
    original = shell.find_cell_magic(name)  # type: ignore[no-untyped-call]

    def run(line: str, cell: str) -> None:
        if line.strip():
            original(line, cell)  # options such as --out
            return
        shell.run_command(cell)
        if code := shell.user_ns["_exit_code"]:
            raise subprocess.CalledProcessError(code, f"%%{name}")

    return run


def _capture_magic(shell: NotebookShell) -> Callable[[str, str], None]:
    """`%%capture`, and an error in it is the cell's: IPython's own prints it into what is captured and goes on."""

    parser: Any = cast(Any, MagicArgumentParser)("%%capture")
    parser.add_argument("output", nargs="?", default="")
    for option in ("--no-stdout", "--no-stderr", "--no-display"):
        parser.add_argument(option, action="store_true")

    def capture(line: str, cell: str) -> None:
        """`%%capture [--no-stdout] [--no-stderr] [--no-display] [output]`

        Run the cell and keep what it prints and displays in the variable `output`; without a name it is lost.
        """
        options = parser.parse_argstring(line)
        shell.compile.is_own(shell.lines_above(cell))
        try:
            with capture_output(not options.no_stdout, not options.no_stderr, not options.no_display) as captured:
                result = cast(Any, shell).run_cell(cell)
        finally:
            shell.compile.is_own(None)
        if options.output:
            shell.user_ns[options.output] = captured
        result.raise_error()

    return capture


def _end(child: subprocess.Popen[bytes]) -> None:
    """Stop a child and what it started: softly first."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            _killpg(child.pid, number)
            child.wait(0.3)
        except (OSError, subprocess.TimeoutExpired):
            continue
        else:
            return


def make_shell(names: dict[str, Any]) -> NotebookShell:
    """The process's shell, with `names` ready in its namespace."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.separate_in = ""
    config.Completer.use_jedi = False
    shell: NotebookShell = NotebookShell.instance(config=config)
    shell.builtin_trap.activate()  # get_ipython() is there for good
    untyped: Any = shell
    untyped.set_hook("show_in_pager", cast(Any, page).as_hook(page.display_page), 90)
    shell.ready_names = {**names, "exit": Quitter("exit"), "quit": Quitter("quit")}
    shell.put_ready_names()
    shell.db = {}  # what %cd and %bookmark note down; IPython's own store is a folder that sessions would share
    untyped.display_formatter.formatters["text/markdown"].for_type(pd.DataFrame, markdown_table)
    plain = untyped.display_formatter.formatters["text/plain"]
    plain.for_type(pd.DataFrame, print_frame)
    plain.max_seq_length = MAX_ITEMS
    for name in ("bash", "sh"):
        untyped.register_magic_function(_script_magic(shell, name), "cell", name)
    untyped.register_magic_function(_capture_magic(shell), "cell", "capture")
    for kind in (Figure, PIL.Image.Image):
        untyped.display_formatter.ipython_display_formatter.for_type(kind, shell.show)
    sys.displayhook = shell.displayhook
    return shell
