"""The session's folder through directory handles: what the guest puts there leads nowhere and holds nothing up."""

import os
import socket
import stat
import time

import pytest

from executor.errors import FileRefused, InvalidRequest, NoSuchFile
from executor.local.paths import MAX_DEPTH, split_path
from executor.local.removal import remove_tree
from executor.local.workspace import Workspace

MIB = 2**20


@pytest.fixture
def workspace(tmp_path):
    return Workspace(str(tmp_path / "session"), max_bytes=4 * MIB, max_files=500)


def put(workspace, path, data):
    upload = workspace.begin_upload(path)
    workspace.write(upload, data, limit=MIB)
    return workspace.finish_upload(upload)


def read(workspace, path):
    fd = workspace.open_file(path)
    try:
        return os.read(fd, MIB)
    finally:
        os.close(fd)


def at(workspace, *parts):
    return os.path.join(workspace.root, *parts)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("/etc/passwd", "absolute"),
        ("~/x", "absolute"),
        ("C:\\x", "absolute"),
        ("../x", "leaves"),
        ("a/../../x", "leaves"),
        ("..", "leaves"),
        (".", "names no file"),
        ("a\nb", "control character"),
        ("a\0b", "control character"),
        ("a\x7fb", "control character"),
        ("\ud800", "surrogate"),
        ("x" * 300, "too long"),
        ("ä" * 128, "too long"),
        ("a/" * 600 + "b", "too long"),
        ("a/" * (MAX_DEPTH + 1) + "b", "deep"),
        (".tmp/x", "kept for the session"),
        (".packages/x", "kept for the session"),
    ],
)
def test_a_path_that_cannot_be_is_refused_with_a_sentence(path, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        split_path(path)


@pytest.mark.parametrize(
    "path", ["a.csv", "plots/1.png", "日本 語.txt", "a b/ç.x", ".hidden", "x" * 255, "-rf", "*", "a//b"]
)
def test_every_ordinary_name_works(workspace, path):
    put(workspace, path, b"data")
    assert read(workspace, path) == b"data"


def test_an_upload_appears_whole_or_not_at_all(workspace):
    upload = workspace.begin_upload("a.bin")
    workspace.write(upload, b"half", limit=MIB)
    assert workspace.list_files() == []
    workspace.abort_upload(upload)
    assert workspace.usage()[1] == len([".tmp", ".packages", ".state", "python", "node", "node_modules"])


def test_an_upload_replaces_a_link_and_not_what_it_points_to(workspace, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("safe")
    os.symlink(victim, at(workspace, "out.txt"))
    put(workspace, "out.txt", b"new")
    assert victim.read_text() == "safe"
    assert read(workspace, "out.txt") == b"new"


def test_links_devices_and_pipes_are_refused_at_once(workspace, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    os.symlink(secret, at(workspace, "link"))
    os.symlink(tmp_path, at(workspace, "folder"))
    os.link(secret, at(workspace, "hard"))
    os.mkfifo(at(workspace, "fifo"))
    server = socket.socket(socket.AF_UNIX)
    server.bind(at(workspace, "sock"))
    began = time.monotonic()
    for path in ("link", "folder/secret", "hard", "fifo", "sock"):
        with pytest.raises(FileRefused):
            workspace.open_file(path)
    with pytest.raises(FileRefused):
        workspace.begin_upload("folder/x")
    assert time.monotonic() - began < 5
    server.close()
    assert not [info for info in workspace.list_files() if info.path in ("link", "fifo", "sock")]


def test_what_is_not_there_is_no_such_file(workspace):
    for act in (workspace.open_file, workspace.delete, workspace.info):
        with pytest.raises(NoSuchFile, match="list_files"):
            act("nothing.txt")
    with pytest.raises(NoSuchFile):
        workspace.move_file("nothing.txt", "x")


def test_a_folder_is_told_from_a_file(workspace):
    put(workspace, "d/x", b"1")
    with pytest.raises(FileRefused, match="is a folder"):
        workspace.open_file("d")
    with pytest.raises(FileRefused, match="is a folder"):
        workspace.begin_upload("d")
    with pytest.raises(FileRefused, match="not a folder"):
        workspace.begin_upload("d/x/y")


def test_moving_never_overwrites(workspace):
    put(workspace, "a", b"1")
    put(workspace, "b", b"2")
    with pytest.raises(FileRefused, match="exists already"):
        workspace.move_file("a", "b")
    workspace.move_file("a", "c/d")
    assert read(workspace, "c/d") == b"1"
    assert read(workspace, "b") == b"2"


def test_only_what_changed_is_reported(workspace):
    assert workspace.changes() == []
    for name in ("b.txt", "a.txt"):
        with open(at(workspace, name), "w") as file:
            file.write("1")
    assert [(info.path, info.change) for info in workspace.changes()] == [("a.txt", "new"), ("b.txt", "new")]
    assert workspace.changes() == []
    with open(at(workspace, "a.txt"), "a") as file:
        file.write("2")
    assert [(info.path, info.change) for info in workspace.changes()] == [("a.txt", "changed")]
    put(workspace, "c.txt", b"x")
    assert workspace.changes() == []


def test_hidden_names_and_caches_are_not_listed(workspace):
    for folder in (".git", "node_modules", "__pycache__"):
        os.mkdir(at(workspace, folder))
        with open(at(workspace, folder, "x"), "w"):
            pass
    assert workspace.list_files() == []
    assert workspace.usage()[1] >= 6


def test_a_name_that_is_no_utf8_is_listed_as_text(workspace):
    with open(os.fsencode(workspace.root) + b"/\xff\xfe.bin", "w"):
        pass
    (info,) = workspace.list_files()
    assert info.path.encode()


def test_a_full_folder_refuses_and_keeps_what_is_there(workspace):
    put(workspace, "keep", b"1")
    with open(at(workspace, "big"), "wb") as file:
        file.write(os.urandom(4 * MIB))
    with pytest.raises(FileRefused, match="full"):
        workspace.begin_upload("more")
    assert read(workspace, "keep") == b"1"


def test_a_file_over_the_limit_leaves_no_trace(workspace):
    upload = workspace.begin_upload("big")
    with pytest.raises(FileRefused, match="over the limit"):
        workspace.write(upload, b"x" * (MIB + 1), limit=MIB)
    assert workspace.list_files() == []
    assert not [name for name in os.listdir(workspace.root) if "upload" in name]


def test_a_sparse_giant_costs_what_it_occupies(workspace):
    with open(at(workspace, "sparse"), "wb") as file:
        file.truncate(10**12)
    assert workspace.usage()[0] < MIB


def test_many_files_are_counted_in_bounded_time(tmp_path):
    workspace = Workspace(str(tmp_path / "s"), max_bytes=MIB, max_files=50)
    for n in range(300):
        with open(at(workspace, str(n)), "w"):
            pass
    assert 50 < workspace.usage()[1] <= 101
    assert len(workspace.scan()) <= 100


def test_a_deep_tree_is_deleted_without_recursion(workspace):
    folder = os.open(workspace.root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    workspace.usage()
    workspace.delete("d")
    assert "d" not in os.listdir(workspace.root)
    workspace.remove()
    assert not os.path.exists(workspace.root)


def test_a_tree_without_permissions_is_deleted_and_links_are_not_followed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "x").write_text("1")
    tree = tmp_path / "tree"
    (tree / "locked" / "inner").mkdir(parents=True)
    os.symlink(kept, tree / "locked" / "link")
    os.chmod(tree / "locked", 0)
    remove_tree(str(tree))
    assert not tree.exists()
    assert (kept / "x").read_text() == "1"


def test_the_folder_is_for_its_owner_alone(workspace):
    assert stat.S_IMODE(os.stat(workspace.root).st_mode) == 0o700
