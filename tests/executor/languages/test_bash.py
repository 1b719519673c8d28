"""bash cells in a real shell, and what outlives the shell."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Cell, Leader
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.languages.bash import Bash
from executor.languages.channel import Done, ProtocolError


class Shell(Leader):
    """Starts the next shell where one ended, as a leader does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Bash(folder=folder, memory_mb=100), folder)

    def finish(self, code: str, *, interrupt_after: float | None = None) -> tuple[Cell, Done | None]:
        """A cell, and how it ended: None where a signal killed the shell. A stop comes so long after the cell has made
        `begun` in the folder: what comes before the cell's own trap is ignored."""
        begun = self.folder / "begun"
        begun.unlink(missing_ok=True)
        cell = self.run(code, interrupt_after=interrupt_after, once=begun)
        if cell.exited is None:
            return cell, cell.done
        bash = self.interpreter
        assert isinstance(bash, Bash)
        done = bash.after_exit(cell.exited, interrupted=interrupt_after is not None)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.control.close()
        self.interpreter = Bash(folder=self.folder, memory_mb=100)
        self.start()
        return cell, done


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell


STATE = """
plain=1; export shared="two words"; list=(a "b c"); declare -A map=([k]='v"v'); declare -i number=7
hello() { echo "hello $1"; }; alias shout='echo LOUD'; mkdir -p sub; cd sub; umask 027
set -o pipefail; shopt -s extglob nullglob; set -- p 'q r'; trap 'echo usr' USR1
"""
SHOWN = """
echo "$plain|${list[1]}|${map[k]}|$number|$1|$2"; hello you
shout; basename "$(/bin/pwd)"; umask; [[ aaa == +(a) ]] && echo extglob; set -o | grep pipefail
sh -c 'echo $shared'; kill -USR1 $$; echo none*
"""
EXPECTED = '1|b c|v"v|7|p|q r\nhello you\nLOUD\nsub\n0027\nextglob\npipefail       \ton\ntwo words\nusr\n\n'


def test_everything_lasts(bash: Shell) -> None:
    assert bash.run(STATE).done["return_code"] == 0
    cell = bash.run(SHOWN)
    assert cell.err == ""
    assert cell.out == EXPECTED


@pytest.mark.parametrize(
    ("code", "status", "kept"),
    [
        ("exit 3", 3, True),
        ("exit", 0, True),
        ("f() { exit 4; }; f", 4, True),
        ("set -e\nfalse\necho never", 1, True),
        ("set -euo pipefail; ls /nowhere 2>/dev/null | cat; echo never", 2, True),
        ("set -u; echo $undefined; echo never", 127, True),
        ("echo ${undefined:?is needed}; echo never", 127, True),
        ("builtin exit 5", 5, True),
        ("break 9", 0, True),
        ("exec true", 0, False),
        ("trap 'echo own' EXIT; exit 6", 6, False),
    ],
)
def test_a_shell_that_ends_is_followed_by_one_with_its_state(bash: Shell, code: str, status: int, kept: bool) -> None:
    bash.run(STATE)
    cell, done = bash.finish(f"here=1\n{code}")
    assert done is not None
    assert "never" not in cell.out
    assert done["return_code"] == status
    assert done["status"] == ("error" if status else "ok")
    assert "restarted bash" in done["notices"][0]
    assert ("are kept" if kept else "before this cell") in done["notices"][0]
    after = bash.run(SHOWN)
    assert (after.out, after.err) == (EXPECTED, "")
    assert bash.run("echo ${here-gone}").out == ("1\n" if kept else "gone\n")


def test_a_shell_that_is_killed_leaves_the_state_before_the_cell(bash: Shell) -> None:
    bash.run(STATE)
    cell, done = bash.finish("plain=changed; kill -9 $$")
    assert done is None
    assert cell.exited == -signal.SIGKILL
    assert "before this cell" in Bash(folder=bash.folder, memory_mb=1).kept()
    assert bash.run(SHOWN).out == EXPECTED


def test_nothing_is_promised_where_nothing_was_saved(bash: Shell) -> None:
    cell, done = bash.finish("x=1; exec true")
    assert cell.exited == 0
    assert done is not None
    assert "lost" in done["notices"][0]
    assert bash.run("echo ${x-gone}").out == "gone\n"


def test_a_forged_or_broken_state_hurts_nobody(bash: Shell) -> None:
    bash.run("x=1")
    bash.finish(
        "echo 'cell 1 a' >.tmp/.bash-state; echo '(((' >.tmp/.bash-state.a; echo ')' >.tmp/.bash-state.b; exec true"
    )
    assert bash.run("echo works").out == "works\n"
    bash.finish("rm -rf .tmp; ln -s /etc/passwd x; exit 2")
    assert bash.run("echo works").out == "works\n"
    (bash.folder / ".tmp").mkdir()
    (bash.folder / ".tmp" / ".bash-state").symlink_to("/etc/hostname")
    assert "lost" in Bash(folder=bash.folder, memory_mb=1).kept()


def test_options_that_end_a_shell_hold_for_one_cell(bash: Shell) -> None:
    assert bash.run("set -euvx; true").done["return_code"] == 0
    cell = bash.run("false; echo $undefined after")
    assert (cell.out, cell.err) == ("after\n", "")


def test_a_trace_shows_the_cell_and_nothing_of_the_driver(bash: Shell) -> None:
    assert bash.run("set -x; echo a").err == "++ echo a\n"


def test_exit_traps_run_when_the_shell_ends(bash: Shell) -> None:
    assert bash.run("trap 'echo bye $?' EXIT").out == ""
    cell, done = bash.finish("x=5; exit 3")
    assert cell.out == "bye 3\n"
    assert done is not None
    assert done["return_code"] == 3
    cell, done = bash.finish("echo $x; exit 4")
    assert cell.out == "5\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [("true", 0), ("false", 1), ("(exit 5)", 5), ("x=$(exit 6)", 6), ("nosuchcommand", 127), ("true | false", 1),
     ("", 0), ("sh -c 'kill -9 $$'", 137), ("f() { return 9; }; f", 9), ("grep -q x /dev/null", 1), ("# nothing", 0)],
)  # fmt: skip
def test_the_status_of_the_last_command_is_the_cells(bash: Shell, code: str, status: int) -> None:
    done = bash.run(code).done
    assert (done["return_code"], done["status"]) == (status, "error" if status else "ok")


def test_errors_name_the_cell_and_its_line(bash: Shell) -> None:
    assert bash.run("echo a\n\nnosuchcommand").err == "cell 1: line 3: nosuchcommand: command not found\n"
    cell = bash.run("echo a\nif then\nfi")
    assert cell.err.startswith("cell 2: eval: line 2: syntax error near unexpected token `then'")
    assert cell.done["return_code"] == 2
    cell = bash.run("echo 'open")
    assert "unexpected EOF" in cell.err
    assert bash.run("for").done["return_code"] == 2
    assert bash.run("echo ok; )").done["return_code"] == 2
    assert bash.run("echo fine $LINENO\necho $LINENO").out == "fine 1\n2\n"


def test_heredocs_and_process_substitution_work(bash: Shell) -> None:
    cell = bash.run(
        "cat <<'E'\n$literal\nE\ncat <<E\n$((1 + 1))\nE\ncat <<<word; diff <(echo 1) <(echo 1) && echo same"
    )
    assert cell.out == "$literal\n2\nword\nsame\n"


def test_stdin_is_empty(bash: Shell) -> None:
    assert bash.run("read x; echo $?; cat; wc -c").out.split() == ["1", "0"]


def test_a_child_sees_three_streams_and_nothing_more(bash: Shell) -> None:
    assert bash.run("ls /proc/self/fd | wc -l").out.strip() == "4"  # the fourth is the folder that ls reads
    assert bash.run("(ls /proc/self/fd | wc -l); echo x >&57").out.strip() == "4"


def test_redirections_of_a_cell_end_with_it(bash: Shell) -> None:
    assert bash.run("exec >out.txt 2>&1 <out.txt; echo hidden; nosuchcommand").out == ""
    cell = bash.run("echo seen; cat out.txt; read x")
    assert cell.out.startswith("seen\nhidden\n")
    assert bash.run("exec >&- 2>&-").done["return_code"] == 0
    assert bash.run("echo again").out == "again\n"


def test_open_files_of_the_guest_last(bash: Shell) -> None:
    bash.run("exec 3>three; exec {own}>four; echo a >&3")
    assert bash.run("echo b >&3; echo c >&$own; cat three four").out == "a\nb\nc\n"


@pytest.mark.parametrize(
    "code",
    [
        "IFS=x; set -f; unset HOME PATH; PROMPT_COMMAND='echo prompt'; PS4=; TMOUT=1; OPTIND=9",
        "printf() { echo mine; }; read() { echo mine; }; trap() { :; }; eval() { :; }; exit() { :; }; set() { :; }",
        "alias eval=false printf=false builtin=false while=false",
        "trap 'echo dbg' DEBUG; trap 'true' ERR; trap 'true' RETURN; trap '' TERM HUP",
        "readonly PWD; readonly -a list=(1); declare -n ref=IFS; shopt -s nocasematch failglob nullglob dotglob",
        "set -o noclobber; set -o posix",
        "LC_ALL=C; LANG=; LINENO=5; BASH_ARGV0=x; RANDOM=3; unset BASH_VERSION LINENO",
        "unset -v IFS; unset -f nothing; unset TMPDIR; cd /; enable -n test",
        "set -- a b c; shift; local x=1 2>/dev/null",
        "continue 3",
        "break",
    ],
)
def test_odd_settings_do_not_break_the_driver(bash: Shell, code: str) -> None:
    assert bash.run(code).done["event"] == "done"
    for _ in range(3):
        cell = bash.run("\\builtin echo works")
        assert [line for line in cell.out.splitlines() if line not in ("dbg", "prompt")] == ["works"]
        assert cell.done["return_code"] == 0


@pytest.mark.parametrize(
    "code",
    [
        "while true; do :; done",
        "sleep 999; echo never",
        "sleep 999 & wait",
        "f() { while true; do sleep 0.05; done; }; f",
        "python3 -c 'while True: pass'; echo never",
        "( while :; do :; done ); echo never",
        "x=$(sleep 999); echo never",
        "sleep 999 | cat; echo never",
        "while true; do python3 -c 'import time; time.sleep(9)'; done",
        "until false; do read -t 0.1 </dev/null; done",
    ],
)
def test_a_stop_keeps_everything(bash: Shell, code: str) -> None:
    bash.run(STATE)
    cell, done = bash.finish(f"here=1; : >~/begun\n{code}", interrupt_after=0.3)
    assert done is not None
    assert done["status"] == "interrupted"
    assert "never" not in cell.out
    assert cell.seconds < 5
    assert "are kept" in done["notices"][0]
    assert bash.run(SHOWN).out == EXPECTED
    assert bash.run("echo $here").out == "1\n"


def test_a_background_job_survives_a_stop_and_ends_its_work(bash: Shell) -> None:
    bash.run("(until [[ -e go ]]; do sleep 0.05; done; echo from the back >late) &")
    _, done = bash.finish(": >begun; sleep 99", interrupt_after=0.1)
    assert done is not None
    assert done["status"] == "interrupted"
    assert bash.run(": >go; until [[ -s late ]]; do sleep 0.05; done; cat late").out == "from the back\n"


def test_jobs_last_from_cell_to_cell(bash: Shell) -> None:
    cell = bash.run("sleep 0.3 && echo done >late & echo started")
    assert (cell.out, cell.err) == ("started\n", "")
    assert cell.seconds < 5
    cell = bash.run("jobs | wc -l; wait; cat late; kill -0 $! 2>/dev/null || echo over")
    assert cell.out.split() == ["1", "done", "over"]


def test_a_stop_between_cells_does_nothing(bash: Shell) -> None:
    bash.run("x=1")
    time.sleep(0.1)
    bash.interrupt()
    time.sleep(0.1)
    assert bash.run("echo $x").out == "1\n"


def test_a_guest_may_handle_the_stop_itself(bash: Shell) -> None:
    cell, done = bash.finish(
        "trap 'echo caught; break' INT; : >begun; while true; do sleep 0.1; done; echo on", interrupt_after=0.3
    )
    assert cell.out == "caught\non\n"
    assert done is not None
    assert done["status"] == "ok"
    assert bash.finish(": >begun; sleep 99", interrupt_after=0.1)[0].seconds < 5


def test_functions_and_options_of_the_driver_are_not_the_guests(bash: Shell) -> None:
    assert bash.run("declare -F; alias; echo $#; env | grep -c __cell").out == "0\n0\n"


def test_large_output_and_large_code_pass(bash: Shell) -> None:
    cell = bash.run("head -c 300000000 /dev/zero | tr '\\0' x")
    assert cell.stdout_bytes == 300_000_000
    assert bash.run("x='" + "ä" * 499_000 + "'; echo ${#x}").out == "499000\n"
    assert bash.run("echo ${#x}; x=").out == "499000\n"
    assert bash.run("# \n" * 300_000 + "echo $LINENO").out == "300001\n"


def test_unusual_text_passes_unchanged(bash: Shell) -> None:
    assert (
        bash.run("printf '%s' 'tab\t back\\slash ü \x01 \U0001f600 \r'").out == "tab\t back\\slash ü \x01 \U0001f600 \r"
    )
    with pytest.raises(ValueError, match="NUL"):
        bash.interpreter.execute("e", "a\0b", 1)


def test_yes_ends_when_its_reader_does(bash: Shell) -> None:
    cell = bash.run('yes | head -1; echo "${PIPESTATUS[@]}"')
    assert (cell.out, cell.err) == ("y\n141 0\n", "")


def test_a_shell_without_its_leader_ends(bash: Shell) -> None:
    bash.run("true")
    bash.control.close()
    assert bash.process.wait(10) >= 0


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"ready\n", b"done e1 0\n", b"done e1 999\n"]), max_size=8))
@settings(max_examples=200, deadline=None)
def test_random_bytes_give_events_or_a_protocol_error(chunks: list[bytes]) -> None:
    language = Bash(folder=Path("/nowhere"), memory_mb=100)
    try:
        for chunk in chunks:
            for event in language.feed(chunk):
                assert event["event"] in ("ready", "done")
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "line", [b"done e1\n", b"done  0\n", b"done e1 -1\n", b"done e1 1000\n", b"hello\n", b"\n", b"x" * 600]
)
def test_lines_that_no_driver_writes_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Bash(folder=Path("/nowhere"), memory_mb=100).feed(line)


def test_how_long_a_cell_takes_and_what_an_idle_shell_weighs(bash: Shell) -> None:
    with Path(f"/proc/{bash.process.pid}/smaps_rollup").open() as file:
        weight = [line.split()[1] for line in file if line.startswith(("Pss:", "Private_Dirty:"))]
    assert bash.run("echo $((1 + 1))").out == "2\n"
    times = sorted(bash.run(":").seconds for _ in range(200))
    print(f"bash: a cell {times[100] * 1000:.2f} ms p50; idle PSS {weight[0]} kB, private dirty {weight[1]} kB")
