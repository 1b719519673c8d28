"""The frames between server and leader: what fits comes through, nothing else does any harm."""

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.local.wire import MAX_DEPTH, Chunk, Decoder, FrameError, encode, encode_chunk, parse

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
messages = st.dictionaries(st.text(), plain, max_size=6)
chunks = st.builds(Chunk, st.integers(0, 2**32 - 1), st.binary(max_size=200))


def frame_bytes(frame):
    return encode_chunk(frame.channel, frame.data) if isinstance(frame, Chunk) else encode(frame)


@given(st.lists(messages | chunks, max_size=8), st.integers(1, 50))
def test_frames_come_back_whole_however_the_stream_is_cut(frames, size):
    stream = b"".join(frame_bytes(frame) for frame in frames)
    decoder = Decoder()
    received = [frame for start in range(0, len(stream), size) for frame in decoder.feed(stream[start : start + size])]
    assert received == frames


@settings(max_examples=500)
@given(st.binary(max_size=400), st.integers(1, 64))
def test_random_bytes_give_frames_or_a_frame_error(data, size):
    decoder = Decoder(max_frame=256)
    try:
        for start in range(0, len(data), size):
            list(decoder.feed(data[start : start + size]))
    except FrameError:
        pass


def test_an_announced_giant_is_refused_before_it_is_read():
    with pytest.raises(FrameError, match="at most"):
        list(Decoder().feed(struct.pack("!IB", 2**31, ord("J"))))


def test_a_frame_of_no_length_and_one_of_unknown_kind_are_refused():
    for bad in (struct.pack("!IB", 0, ord("J")), struct.pack("!IB", 3, ord("X")), struct.pack("!IB", 2, ord("B"))):
        with pytest.raises(FrameError):
            list(Decoder().feed(bad + b"abc"))


def test_nesting_is_bounded_on_both_sides_of_what_json_itself_refuses():
    def nested(depth):
        return b'{"a":' + b"[" * depth + b"]" * depth + b"}"

    assert parse(nested(MAX_DEPTH - 2))
    for depth in (MAX_DEPTH + 1, 5_000, 200_000):
        with pytest.raises(FrameError):
            parse(nested(depth))


def test_many_shallow_brackets_are_fine():
    assert len(parse(json.dumps({"a": [[1]] * 1000}).encode())["a"]) == 1000


def test_what_is_no_object_is_refused():
    for body in (b"", b"[]", b"1", b'"x"', b"{", b"\xff\xfe", b"null"):
        with pytest.raises(FrameError):
            parse(body)
