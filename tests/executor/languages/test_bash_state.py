"""A bash's state in a folder that lies elsewhere by now."""

import shutil

from executor.languages.bash import Bash
from tests.executor.languages.harness import Leader


def test_what_names_the_sessions_folder_follows_it_elsewhere(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    first = Leader(Bash(folder=old, memory_mb=512), old)
    try:
        first.run("v=5; here=$PWD/file; f() { echo \"in $PWD\"; }; mkdir sub; cd sub; arr=(a 'b c')")
        first.run(":")  # the state of a cell is written when it is done: before the next one begins
    finally:
        first.close()
    shutil.copytree(old, new)
    shutil.rmtree(old)
    bash = Bash(folder=new, memory_mb=512)
    head = bash.state()
    assert head is not None and {"v", "here", "arr", "f()"} <= set(head.names)
    assert not {"PATH", "HOME", "BASH_VERSION"} & set(head.names)
    second = Leader(bash, new)
    try:
        cell = second.run('echo $v "${arr[1]}" $PWD $here; f; cd; pwd')
        assert cell.out == f"5 b c {new}/sub {new}/file\nin {new}/sub\n{new}\n"
    finally:
        second.close()


def test_a_folder_in_which_no_shell_ran_has_no_state(tmp_path):
    assert Bash(folder=tmp_path, memory_mb=512).state() is None
