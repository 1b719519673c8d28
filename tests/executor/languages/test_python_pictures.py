"""The encoder keeps within its budget, whatever the picture."""

import base64
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from executor.languages.pictures import MAX_SIDE, MIN_WIDTH, Plots, Source, decode, encode, full_size


def noise(width, height, mode="RGB", seed=0):
    """The hardest picture to make small."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype="uint8")
    return Image.fromarray(pixels, mode)


def opened(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture["data"])))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    mode=st.sampled_from(["RGB", "RGBA"]),
    limit=st.integers(0, 60_000),
    plain=st.booleans(),
)
def test_a_picture_is_within_its_limit_and_readable_or_left_out(width, height, mode, limit, plain):
    image = Image.new(mode, (width, height), "navy") if plain else noise(width, height, mode)
    source = Source(image)
    picture = encode(source, limit=limit, file=full_size(source))
    if picture is None:
        assert limit < 60_000 or not plain
        return
    assert len(picture["data"]) <= limit
    assert picture["width"] >= min(width, MIN_WIDTH) or max(width, height) > MAX_SIDE
    decoded = opened(picture)
    assert decoded.size == (picture["width"], picture["height"])
    assert decoded.format == {"image/png": "PNG", "image/webp": "WEBP"}[picture["mime"]]


def test_flat_colours_stay_exact():
    image = Image.new("RGB", (200, 100), (12, 200, 99))
    source = Source(image)
    picture = encode(source, limit=60_000, file=full_size(source))
    assert opened(picture).convert("RGB").getpixel((50, 50)) == (12, 200, 99)
    assert picture["mime"] == "image/png"


@pytest.mark.parametrize(("ink", "ground"), [((0, 0, 0, 255), 255), ((255, 255, 255, 255), 34)])
def test_what_is_see_through_gets_a_ground_that_its_content_stands_out_from(ink, ground):
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste(ink, (40, 40, 60, 60))
    picture = encode(Source(image), limit=60_000)
    assert opened(picture).convert("RGB").getpixel((5, 5)) == (ground,) * 3
    assert opened(picture).convert("RGB").getpixel((50, 50)) == ink[:3]


def test_very_wide_and_very_high_pictures_are_fitted():
    for size in ((20_000, 50), (50, 20_000), (4000, 3000)):
        picture = encode(Source(Image.new("RGB", size, "red")), limit=60_000)
        assert picture is None or max(picture["width"], picture["height"]) <= 16_000


def test_bytes_that_are_no_picture_are_refused():
    for data in (b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"%PDF-1.4"):
        with pytest.raises(ValueError, match="no picture"):
            decode(data)


def test_numbers_of_files_go_on_where_they_are_free(tmp_path):
    plots = Plots(tmp_path)
    assert [plots.keep(b"x", "png"), plots.keep(b"y", "jpg")] == ["plots/1.png", "plots/2.jpg"]
    (tmp_path / "plots" / "3.png").mkdir()
    assert plots.keep(b"z", "png") == "plots/4.png"
    assert (tmp_path / "plots" / "2.jpg").read_bytes() == b"y"
