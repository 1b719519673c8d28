"""A bash's state: what it holds and what is lost, and a folder that lies elsewhere by now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import Leader

from executor.languages.bash import Bash
from executor.languages.channel import StateHead


def shell(folder: Path) -> Leader:
    folder.mkdir(exist_ok=True)
    return Leader(Bash(folder=folder, memory_mb=512), folder)


def head(folder: Path) -> StateHead:
    found = Bash(folder=folder, memory_mb=512).state()
    assert found is not None
    return found


def moved(folder: Path, *cells: str) -> Path:
    """Where the folder lies after the cells have run in it."""
    with shell(folder / "old") as first:
        # the state of a cell is written when it is done, before the next one begins
        for code in (*cells, ":"):
            assert first.run(code).done["return_code"] == 0
    shutil.copytree(folder / "old", folder / "new")
    shutil.rmtree(folder / "old")
    return folder / "new"


def test_what_names_the_sessions_folder_follows_it_elsewhere(tmp_path: Path) -> None:
    new = moved(tmp_path, 'v=5; here=$PWD/file; f() { echo "in $PWD"; }; mkdir sub; cd sub; arr=(a "b c")')
    told = head(new)
    assert {"v", "here", "arr", "f()"} == set(told.names)
    assert not {"PATH", "HOME", "BASH_VERSION", "PWD"} & set(told.names)
    assert told.lost == ()
    with shell(new) as second:
        cell = second.run('echo $v "${arr[1]}" $PWD $here; f; cd; pwd')
        assert cell.out == f"5 b c {new}/sub {new}/file\nin {new}/sub\n{new}\n"


def test_the_folder_before_home_and_the_temporary_folder_follow_for_children_as_well(tmp_path: Path) -> None:
    new = moved(tmp_path, "mkdir one two; cd one; cd ../two; export MINE=$HOME/bin:/usr/bin")
    with shell(new) as second:
        assert second.run("cd - >/dev/null; pwd").out == f"{new}/one\n"
        cell = second.run("sh -c 'echo \"$PWD|$OLDPWD|$HOME|$TMPDIR|$MINE\"'")
        assert cell.out == f"{new}/one|{new}/two|{new}|{new}/.tmp|{new}/bin:/usr/bin\n"


def test_a_folder_that_is_gone_leaves_the_shell_at_the_top(tmp_path: Path) -> None:
    new = moved(tmp_path, "x=1; mkdir gone; cd gone")
    (new / "gone").rmdir()
    with shell(new) as second:
        assert second.run("echo $x; /bin/pwd").out == f"1\n{new}\n"


def test_a_folder_in_which_no_shell_ran_has_no_state(tmp_path: Path) -> None:
    assert Bash(folder=tmp_path, memory_mb=512).state() is None


def test_jobs_and_open_files_are_named_as_lost(tmp_path: Path) -> None:
    with shell(tmp_path) as first:
        first.run(
            "sleep 20 & exec 5>out.txt 7</dev/null; true & x=1\nwhile [[ $(jobs -r) == *true* ]]; do sleep 0.01; done"
        )
        first.run(":")
        lost = {item["name"]: (item["type"], item["reason"]) for item in head(tmp_path).lost}
        assert lost == {
            "%1": ("job", "running in the background: sleep 20"),
            "descriptor 5": ("file", "open file"),
            "descriptor 7": ("file", "open file"),
        }
        first.run("kill %1; wait; exec 5>&- 7<&-")
        first.run(":")
        assert head(tmp_path).lost == ()


def test_looking_at_the_jobs_takes_none_of_them_away(tmp_path: Path) -> None:
    with shell(tmp_path) as first:
        first.run("(exit 3) & ended=$!; (while [[ ! -e go ]]; do sleep 0.02; done; exit 4) &")
        first.run("true")
        assert first.run(": >go; wait %2; echo $?; wait $ended; echo $?").out == "4\n3\n"


def test_a_variable_that_was_unset_is_no_longer_told(tmp_path: Path) -> None:
    with shell(tmp_path) as first:
        for code in ("keep=1 big=$(printf '%05000d' 0); tool() { :; }", "unset big; unset -f tool", ":", ":"):
            first.run(code)
        assert head(tmp_path).names == ("keep",)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\0\0\0",
        b"declare -- x\0[1]+  Running                 " + b"y" * 5000 + b" &\nopen 3\nopen 999999\n\0",
        b"declare -- " + b"n" * 5000 + b"=1\n" + b'declare -- v="' + b"\xff\xfe" * 100 + b'"\n',
        b"declare -- a=1\n" * 100_000,
        b"declare -f \xff\n" + b"[1]+  Running" * 10_000,
    ],
)
def test_a_forged_state_gives_a_short_head_at_most(tmp_path: Path, state: bytes) -> None:
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / ".bash-state").write_text("cell 1 a\n")
    (tmp_path / ".tmp" / ".bash-state.a").write_bytes(state)
    told = head(tmp_path)
    assert len(told.names) <= 500
    assert all(len(name) <= 200 for name in told.names)
    assert all(len(item["name"]) + len(item["reason"]) <= 400 for item in told.lost)
