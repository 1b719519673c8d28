"""An output stream within its cap: head and tail stay, what was cut is said, the whole is in a file."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.local.stream import Stream
from executor.local.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(str(tmp_path / "session"), max_bytes=2**24, max_files=100)


def stream(workspace, *, cap=400, max_log=10_000):
    return Stream("stdout", workspace, cap=cap, log="logs/out.txt", max_log=max_log)


def log(workspace):
    with open(os.path.join(workspace.root, "logs/out.txt"), "rb") as file:
        return file.read()


def test_short_output_is_kept_as_it_is_and_makes_no_file(workspace):
    out = stream(workspace)
    assert out.feed("grün\n".encode()) == "grün\n"
    assert out.finish() == "grün\n"
    assert not out.truncated
    assert not os.path.exists(os.path.join(workspace.root, "logs"))


def test_long_output_keeps_head_and_tail_within_the_cap_and_the_whole_in_a_file(workspace):
    out = stream(workspace)
    data = b"".join(b"line %d\n" % n for n in range(500))
    for start in range(0, len(data), 100):
        out.feed(data[start : start + 100])
    text = out.finish()
    assert len(text) <= 400
    assert text.startswith("line 0\n")
    assert text.endswith("line 499\n")
    assert f"stdout had {len(data):,} bytes; all of it is in logs/out.txt" in text
    assert log(workspace) == data


def test_a_log_over_its_own_cap_says_so(workspace):
    out = stream(workspace, max_log=1000)
    for _ in range(50):
        out.feed(b"x" * 100)
    assert "the first 1,000 bytes are in logs/out.txt" in out.finish()
    assert len(log(workspace)) == 1000


def test_a_log_that_cannot_be_kept_is_no_failure_but_is_said(workspace):
    os.symlink("/etc", os.path.join(workspace.root, "logs"))
    out = stream(workspace)
    out.feed(b"x" * 1000)
    text = out.finish()
    assert "no log of it could be kept" in text
    assert len(text) <= 400


def test_binary_output_becomes_text(workspace):
    out = stream(workspace)
    out.feed(bytes(range(256)))
    assert out.finish().encode()


def test_a_character_cut_by_a_chunk_border_survives(workspace):
    out = stream(workspace)
    shown = "".join(out.feed(bytes([byte])) for byte in "a€b".encode())
    assert shown == "a€b" == out.finish()


@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(200, 600))
def test_no_bytes_break_the_cap(tmp_path_factory, parts, cap):
    workspace = Workspace(str(tmp_path_factory.mktemp("s") / "session"), max_bytes=2**24, max_files=100)
    out = stream(workspace, cap=cap)
    shown = "".join(out.feed(part) for part in parts)
    text = out.finish()
    assert len(text) <= cap
    assert out.total == sum(map(len, parts))
    assert len(shown) <= cap
    assert out.truncated == (text != b"".join(parts).decode("utf-8", "replace"))
