"""A tree of processes knows whether it can be walked, and goes where it is let."""

import os
import subprocess

import pytest

from executor.sandbox.processes import ProcessTree


@pytest.fixture
def proc():
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def poor_proc(tmp_path):
    """The /proc of a kernel that lists no children."""
    (tmp_path / "7" / "task" / "7").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def family(proc):
    """A shell with a child of its own: the tree below us, and the pids of the two."""
    shell = subprocess.Popen(["bash", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    child = int(shell.stdout.readline())
    yield ProcessTree(os.getpid(), proc), shell.pid, child
    os.kill(child, 9)
    shell.wait()
    shell.stdout.close()


def test_where_the_kernel_lists_no_children_a_tree_says_so(proc, poor_proc):
    assert ProcessTree(os.getpid(), proc).walkable
    assert not ProcessTree(7, poor_proc).walkable


def test_what_is_spared_and_all_below_it_is_not_among_the_members(family):
    tree, shell, child = family
    assert {shell, child} <= set(tree.members())
    assert child not in tree.members(sparing={child}) and shell in tree.members(sparing={child})
    assert not {shell, child} & set(tree.members(sparing={shell}))


def test_a_process_belongs_to_the_session_by_its_parents(family):
    tree, shell, child = family
    assert tree.contains(child) and not tree.contains(os.getpid()) and not tree.contains(1)
    tree.trusted.add(shell)
    assert tree.contains(child) and not tree.contains(shell)
