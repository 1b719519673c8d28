"""The encoder of pictures: small enough for the reader's budget, readable, full size kept as a file."""

from __future__ import annotations

import hashlib
import io
import math
import os
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import PIL.WebPImagePlugin  # registered now: a guest's file of that name must not be able to stand in for it later

from executor.languages.channel import PictureData

MAX_PICTURE_CHARS = 60_000
"""Base64 characters that one picture may take."""
MIN_PICTURE_CHARS = 7_000
"""A share below this is not worth having while the cell's budget still holds it."""
MAX_SIDE = 1_600
"""Pixels of the longer side that a reader gets; vision models scale anything larger down themselves."""
MIN_WIDTH = 320
"""Pixels of width below which text in a plot cannot be read."""
MAX_PIXELS = 40_000_000
"""Pictures with more pixels are not decoded."""
FOLDER = "plots"

_PALETTES = ((256, 2.0), (64, 3.0), (32, 4.2), (16, 4.6))
"""Colours, and the mean absolute error in 1/255 up to which they pass for the picture. For plots such palettes come
closer to it than WebP of the same size does: measured, 57 kB against 51 kB of base64 with 2.4 against 6.0 of error."""
_LEAST_CHARS = 100
"""No picture is smaller."""
_HOPELESS = 2.5
"""Times the budget from which only fewer pixels help."""
_ATTEMPTS = 6
_QUALITIES = (85, 70, 50, 30)

_new = PIL.Image.new
_open = PIL.Image.open
_save = PIL.Image.Image.save
_convert = PIL.Image.Image.convert
_resize = PIL.Image.Image.resize
_quantize = PIL.Image.Image.quantize
_paste = PIL.Image.Image.paste
_fstat = os.fstat
_os_open = os.open
_write = os.write
_close = os.close
_unlink = os.unlink
_mkdir = os.mkdir
_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "WEBP": "webp"}
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")


SMALL = 32_000
"""Bytes of a PNG that is sent as it is."""


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to be sent: the decoded image, and the file's bytes where it came as one."""

    image: PIL.Image.Image
    file: bytes | None = None
    suffix: str = "png"

    def digest(self) -> bytes:
        """Equal for equal pixels of the same colours: a palette's indices alone do not say what is seen."""
        image = self.image
        palette = image.getpalette(None)  # loads the picture, which may put its transparency into the palette
        header = repr((image.mode, image.size, palette, image.info.get("transparency")))
        return hashlib.blake2b(header.encode() + image.tobytes(), digest_size=16).digest()


def decode(data: bytes) -> Source:
    """The picture in a PNG, JPEG, GIF or WebP file (of an animation its first frame). Raises ValueError."""
    try:
        image = _open(io.BytesIO(data), formats=tuple(_SUFFIXES))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many to be shown.")
        suffix = _SUFFIXES[image.format or "PNG"]
        image.load()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"These bytes are no picture that can be shown: {type(error).__name__}.") from None
    return Source(image, data, suffix)


def full_size(source: Source) -> bytes:
    """The file that is kept: what came, or a PNG."""
    if source.file is not None:
        return source.file
    image = source.image if source.image.mode in (*_MODES, "I;16") else _convert(source.image, "RGB")
    return _encoded(image, "PNG", compress_level=1 if image.width * image.height > 2_000_000 else 4)


def encode(source: Source, *, limit: int, alt: str = "", file: bytes | None = None) -> PictureData | None:
    """The best picture within `limit` base64 characters, or None where none of at least MIN_WIDTH pixels fits.

    PNG or palette PNG where that loses nothing that the eye sees, else WebP; then scaled down. `file` is `full_size`,
    where the caller has it at hand.
    """
    if limit < _LEAST_CHARS:
        return None
    budget = limit // 4 * 3
    image = _flattened(source.image)
    width, height = image.size
    scale = min(1.0, MAX_SIDE / max(width, height))
    floor = min(1.0, MIN_WIDTH / width)
    plain = file if source.suffix == "png" else None
    scale = max(scale, floor) if max(width, height) * floor <= 16_000 else scale
    if plain is not None and scale == 1.0 and len(plain) <= min(budget, SMALL) and _opaque(source.image):
        # small as it is, and exact: a search for less would take longer than drawing took
        text = b64encode(plain).decode()
        return {"mime": "image/png", "data": text, "width": width, "height": height, "path": None, "alt": alt}
    for attempt in range(_ATTEMPTS):
        smaller = image if scale == 1.0 else _resize(image, _scaled(image.size, scale), PIL.Image.Resampling.HAMMING)
        candidate, size = _fitting(smaller, budget, plain if scale == 1.0 else None, smallest_form=scale <= floor)
        if candidate is not None:
            mime, data = candidate
            text = b64encode(data).decode()
            return {
                "mime": mime,
                "data": text,
                "width": smaller.width,
                "height": smaller.height,
                "path": None,
                "alt": alt,
            }
        if scale <= floor:
            return None
        if limit < MIN_PICTURE_CHARS or attempt == _ATTEMPTS - 2:
            scale = floor  # the last bit of a budget is not worth a search, and no picture is given up above the floor
            continue
        scale = max(floor, scale * max(0.4, min(0.9, math.sqrt(budget / size) * 0.95)))
    return None


def _opaque(image: PIL.Image.Image) -> bool:
    return image.mode in ("RGB", "L") or (image.mode == "RGBA" and image.getchannel("A").getextrema()[0] == 255)


def _fitting(
    image: PIL.Image.Image, budget: int, plain: bytes | None, *, smallest_form: bool
) -> tuple[tuple[str, bytes] | None, int]:
    """The most faithful form of `image` within `budget` bytes, and the size of the smallest form tried.

    `smallest_form`: there will be no fewer pixels, so every form is worth a try.
    """
    smallest = 1 << 60
    for colours, error in _PALETTES:
        palette = _quantize(image, colours, method=PIL.Image.Quantize.FASTOCTREE, dither=PIL.Image.Dither.NONE)
        data = _encoded(palette, "PNG")
        smallest = min(smallest, len(data))
        faithful = _difference(palette, image) <= error
        if plain is not None and (len(plain) <= len(data) or not faithful) and len(plain) <= budget:
            return ("image/png", plain), len(plain)
        if faithful and len(data) <= budget:
            return ("image/png", data), len(data)
        if smallest > _HOPELESS * budget:
            break
    if smallest_form or smallest <= _HOPELESS * budget:
        for quality in _QUALITIES:
            data = _encoded(image, "WEBP", quality=quality, method=2)
            smallest = min(smallest, len(data))
            if len(data) <= budget:
                return ("image/webp", data), len(data)
            if len(data) > 2 * budget and not smallest_form:
                break  # a lower quality would not make up for that: fewer pixels will
        return None, smallest
    return None, smallest // 2  # what the forms not tried would have taken, about


def _flattened(image: PIL.Image.Image) -> PIL.Image.Image:
    """`image` as opaque RGB; what is see-through gets a background that its content stands out from."""
    if image.mode == "RGB":
        return image
    if image.mode in ("LA", "PA", "La", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        image = _convert(image, "RGBA")
    if image.mode == "RGBA":
        pixels = np.asarray(image)
        alpha = pixels[..., 3]
        if alpha.min() == 255:
            return _convert(image, "RGB")
        seen = pixels[alpha > 64]
        light = seen.size and seen[:, :3].mean() > 200 and seen[:, :3].min() > 100
        ground = _new("RGB", image.size, (34, 34, 34) if light else (255, 255, 255))
        _paste(ground, image, mask=image.getchannel("A"))
        return ground
    if image.mode in ("I", "F", "I;16"):
        values = np.asarray(image, dtype=float)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        grey = np.nan_to_num((values - low) / ((high - low) or 1.0) * 255).astype("uint8")
        image = PIL.Image.fromarray(grey)
    return _convert(image, "RGB")


def _difference(palette: PIL.Image.Image, image: PIL.Image.Image) -> float:
    step = max(1, image.width * image.height // 500_000)
    ours = np.asarray(_convert(palette, "RGB"), dtype=np.int16).reshape(-1, 3)[::step]
    theirs = np.asarray(image, dtype=np.int16).reshape(-1, 3)[::step]
    return float(np.abs(ours - theirs).mean())


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _encoded(image: PIL.Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    _save(image, buffer, format=kind, **options)
    return buffer.getvalue()


class Plots:
    """The numbered files of full-size pictures below `plots/` in the session's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._next = 1

    def keep(self, data: bytes, suffix: str) -> str:
        """Write `data` under the next free number; returns the path relative to the folder. Raises OSError."""
        with suppress(FileExistsError):
            _mkdir(f"{self._folder}/{FOLDER}")
        while True:
            path = f"{FOLDER}/{self._next}.{suffix}"
            try:
                fd = _os_open(
                    f"{self._folder}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
                )
            except FileExistsError:
                self._next += 1
                continue
            break
        self._next += 1
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[_write(fd, rest) :]
        except BaseException:
            _unlink(f"{self._folder}/{path}")
            raise
        finally:
            _close(fd)
        return path
