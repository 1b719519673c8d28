"""The exchange of packages on the leader's side, in a folder that a hostile guest has had its way with."""

import os

import pytest

from executor.errors import BackendFailed, FileRefused
from executor.local.installation import Installation
from executor.local.workspace import Workspace
from executor.parcel import pack

MIB = 2**20


@pytest.fixture
def workspace(tmp_path):
    return Workspace(str(tmp_path / "session"), max_bytes=4 * MIB, max_files=200)


@pytest.fixture
def outside(tmp_path):
    """A folder that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    yield folder
    assert [(entry.name, entry.read_text()) for entry in folder.iterdir()] == [("precious", "mine")]


def parcel(tmp_path, **files):
    root = tmp_path / f"tree-{len(list(tmp_path.iterdir()))}"
    for path, data in files.items():
        place = root / path.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    root.mkdir(exist_ok=True)
    return b"".join(pack(root))


def install(workspace, data, language="python"):
    installation = Installation(workspace, language)
    installation.write(data)
    installation.finish()


def path(workspace, *parts):
    return os.path.join(workspace.root, *parts)


def found(workspace, *parts):
    """What the package folder holds, and that nothing temporary is left."""
    assert os.listdir(path(workspace, ".tmp")) == []
    return sorted(os.listdir(path(workspace, ".packages", *(parts or ("python",)))))


def test_a_later_set_takes_the_place_of_the_former(workspace, tmp_path):
    install(workspace, parcel(tmp_path, a=b"1", old__b=b"2"))
    assert found(workspace) == ["a", "old"]
    install(workspace, parcel(tmp_path, a=b"3"))
    assert found(workspace) == ["a"]
    with open(path(workspace, ".packages", "python", "a"), "rb") as file:
        assert file.read() == b"3"
    install(workspace, parcel(tmp_path, dep=b"1"), "javascript")
    assert found(workspace, "node", "node_modules") == ["dep"]


@pytest.mark.parametrize("kind", ["link", "fifo", "file", "gone"])
def test_whatever_is_in_the_place_of_the_package_folder_is_exchanged_itself(workspace, tmp_path, outside, kind):
    place = path(workspace, ".packages", "python")
    os.rmdir(place)
    {
        "link": lambda: os.symlink(outside, place),
        "fifo": lambda: os.mkfifo(place),
        "file": lambda: open(place, "w").close(),
        "gone": lambda: None,
    }[kind]()
    install(workspace, parcel(tmp_path, a=b"1", b__c=b"2"))
    assert found(workspace) == ["a", "b"] and not os.path.islink(place)


@pytest.mark.parametrize("folder", [".packages", ".tmp"])
@pytest.mark.parametrize("kind", ["link", "fifo", "file"])
def test_a_folder_above_it_that_is_none_is_an_error_and_nothing_is_written(workspace, tmp_path, outside, folder, kind):
    place = path(workspace, folder)
    os.rename(place, path(workspace, "aside"))
    {
        "link": lambda: os.symlink(outside, place),
        "fifo": lambda: os.mkfifo(place),
        "file": lambda: open(place, "w").close(),
    }[kind]()
    with pytest.raises(FileRefused, match="Code of this session has changed the folders"):
        install(workspace, parcel(tmp_path, a=b"1"))


def test_a_link_put_into_the_growing_tree_is_not_followed(workspace, tmp_path, outside):
    data = parcel(tmp_path, b__precious=b"theirs")
    installation = Installation(workspace, "python")
    (stage,) = os.listdir(path(workspace, ".tmp"))
    os.symlink(outside, path(workspace, ".tmp", stage, "b"))
    with pytest.raises(FileRefused, match="Code of this session"):
        installation.write(data)
    assert found(workspace) == []


def test_a_file_put_into_the_growing_tree_is_not_written_to(workspace, tmp_path, outside):
    data = parcel(tmp_path, precious=b"theirs")
    installation = Installation(workspace, "python")
    (stage,) = os.listdir(path(workspace, ".tmp"))
    os.symlink(outside / "precious", path(workspace, ".tmp", stage, "precious"))
    with pytest.raises(FileRefused, match="Code of this session"):
        installation.write(data)


@pytest.mark.parametrize("too", ["large", "many"])
def test_what_does_not_fit_leaves_the_former_packages_and_no_trace(workspace, tmp_path, too):
    install(workspace, parcel(tmp_path, former=b"1"))
    files = {"a": b"x" * 5 * MIB} if too == "large" else {f"f{n}": b"" for n in range(300)}
    with pytest.raises(FileRefused, match="do not fit"):
        install(workspace, parcel(tmp_path, **files))
    assert found(workspace) == ["former"]


def test_a_parcel_that_ends_early_or_is_given_up_leaves_no_trace(workspace, tmp_path):
    data = parcel(tmp_path, a__b=b"x" * 1000)
    installation = Installation(workspace, "python")
    installation.write(data[:500])
    with pytest.raises(BackendFailed, match="cut short"):
        installation.finish()
    given_up = Installation(workspace, "python")
    given_up.write(data[:500])
    given_up.abort()
    given_up.abort()
    assert found(workspace) == []


def test_no_descriptor_is_left_open(workspace, tmp_path):
    data = parcel(tmp_path, a__b=b"1", c__d__e=b"2")
    install(workspace, data)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        install(workspace, data)
        cut = Installation(workspace, "python")
        cut.write(data[:-1])
        cut.abort()
    assert len(os.listdir("/proc/self/fd")) == before
