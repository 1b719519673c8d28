"""A folder as a stream of bytes, and back."""

import os
import struct

import pytest

from executor.parcel import PIECE, Entry, ParcelError, Unpacker, measure, pack


def unpacked(pieces):
    unpacker, files, name = Unpacker(), {}, None
    for piece in pieces:
        for item in unpacker.feed(piece):
            if isinstance(item, Entry):
                name = "/".join(item.parts), item.executable
                files[name] = b""
            else:
                files[name] += item
    unpacker.close()
    return files


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    (root / "a" / "ä b").mkdir(parents=True)
    (root / "empty").write_bytes(b"")
    (root / "a" / "ä b" / "large").write_bytes(os.urandom(2 * PIECE + 7))
    (root / "a" / "run").write_bytes(b"#!")
    (root / "a" / "run").chmod(0o755)
    (root / "link").symlink_to("/etc/passwd")
    (root / "linked").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize("size", [1 << 20, 4096, 7])
def test_files_come_back_in_pieces_of_any_size_without_links_and_pipes(folder, size):
    whole = b"".join(pack(folder))
    files = unpacked(whole[start : start + size] for start in range(0, len(whole), size))
    assert files == {
        ("empty", False): b"",
        ("a/run", True): b"#!",
        ("a/ä b/large", False): (folder / "a" / "ä b" / "large").read_bytes(),
    }
    assert measure(folder) == (2 * PIECE + 9, 3)


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a//x", b"a/./x", b"a/../../x", b"", b"x\0", b"a/" * 60 + b"x"])
def test_a_path_that_leaves_the_folder_is_refused(path):
    with pytest.raises(ParcelError, match="leaves"):
        unpacked([head(path, b"F", 1) + path + b"x"])


@pytest.mark.parametrize(("letter", "size"), [(b"P", 0), (b"D", 1), (b"L", 0), (b"L", 5000)])
def test_what_is_no_file_folder_or_link_is_refused(letter, size):
    with pytest.raises(ParcelError, match="holds"):
        unpacked([head(b"x", letter, size) + b"x" * (size + 1)])


def test_an_entry_comes_back_with_all_that_is_known_of_it():
    entries = [
        Entry(("a", "b\u00e4"), "folder", 0o750, -5),
        Entry(("a", "l"), "link", 0o777, 2**40, 3),
        Entry(("a", "f"), "file", 0o644, 1_700_000_000_123_456_789, 2),
    ]
    data = entries[0].head() + entries[1].head() + b"../" + entries[2].head() + b"hi"
    assert list(Unpacker().feed(data)) == [entries[0], entries[1], b"../", entries[2], b"hi"]


def head(path, letter, size):
    return struct.pack("!HcHqQ", len(path), letter, 0o600, 0, size)


def test_a_parcel_that_is_cut_short_is_noticed(folder):
    whole = b"".join(pack(folder))
    for end in (3, 11, len(whole) - 1):
        with pytest.raises(ParcelError, match="cut short"):
            unpacked([whole[:end]])
