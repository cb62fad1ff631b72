"""Images as tensors: PNG and PPM without another package, and the way into a model's input.

PNG as in RFC 2083: 8 bits a sample, not interlaced, which is what cameras and tools write. Other
formats (JPEG, WebP, BMP, and other kinds of PNG) are read with Pillow where it is installed.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from math import isqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import OperatorError
from edgefleet.client.inference.limits import IMAGE_PIXELS
from edgefleet.client.inference.model_info import TensorInfo

Pixels = NDArray[np.uint8]
"""Shape (height, width, channels), with 1 or 3 channels."""

PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n"
IMAGE_HEADS: Final = (PNG_HEAD, b"P5", b"P6", b"\xff\xd8\xff", b"BM", b"RIFF", b"GIF8", b"II*\0")
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_LUMA: Final = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Scaling:
    """Pixels p become (p / divide - mean) / std. ``divide`` None: 255 for floats, 1 for others.

    ``mean`` and ``std`` have one number, or one for each channel.
    """

    divide: float | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)


def read_image(data: bytes, name: str) -> Pixels:
    """The pixels of an image file. ``name`` is for messages.

    Raises OperatorError ``bad_request`` for a damaged or too large image, and for a format that
    needs Pillow where it is not installed.
    """
    try:
        found = _read_png(data) if data.startswith(PNG_HEAD) else _read_ppm(data)
    except (ValueError, struct.error, zlib.error, IndexError) as error:
        raise _bad(name, f"The image is damaged: {error}.") from error
    return _with_pillow(data, name) if found is None else found


def image_tensor(pixels: Pixels, info: TensorInfo, scaling: Scaling) -> NDArray[Any]:
    """The image as batch of one for the input ``info``: resized, in its layout, and scaled.

    The input is [b, c, h, w], [b, h, w, c], [b, h, w] or [b, n], with 1 or 3 channels and n pixels
    of a square image; an open height or width keeps that of the image. Raises OperatorError
    ``bad_request`` for any other shape.
    """
    height, width, channels, first = _layout(pixels, info)
    fitted = _resized(_with_channels(pixels, channels), height, width)
    is_float = info.datatype.startswith(("FP", "BF"))
    divide = scaling.divide or (255.0 if is_float else 1.0)
    for numbers in (scaling.mean, scaling.std):
        if len(numbers) not in (1, channels):
            raise _bad(info.name, f"Give 1 or {channels} numbers as mean and std.")
    values = (fitted / divide - np.array(scaling.mean)) / np.array(scaling.std)
    if not is_float:
        values = values.round()
    if first:
        values = values.transpose(2, 0, 1)
    shape = tuple(size if size > 0 else -1 for size in info.shape[1:])
    if shape.count(-1) > 1:
        shape = values.shape if len(shape) == 3 else values.shape[:2]
    made: NDArray[Any] = values.reshape(1, *shape)
    return made


def _layout(pixels: Pixels, info: TensorInfo) -> tuple[int, int, int, bool]:
    """Height, width, channels, and whether the channels come first."""
    height, width = pixels.shape[:2]
    match info.shape[1:]:
        case (1 | 3 as channels, high, wide):
            return _or(high, height), _or(wide, width), channels, True
        case (high, wide, 1 | 3 as channels):
            return _or(high, height), _or(wide, width), channels, False
        case (high, wide):
            return _or(high, height), _or(wide, width), 1, False
        case (count,) if count > 0:
            for channels in (1, 3):
                side = isqrt(count // channels)
                if side * side * channels == count:
                    return side, side, channels, False
        case _:
            pass
    raise OperatorError(
        "bad_request",
        f"The input has shape {list(info.shape)}, which is no image.",
        field=info.name,
        hint="Give its values as .npy, .npz or JSON.",
    )


def _or(wanted: int, own: int) -> int:
    return wanted if wanted > 0 else own


def _with_channels(pixels: Pixels, channels: int) -> NDArray[np.float64]:
    wide = pixels.astype(np.float64)
    if pixels.shape[2] == channels:
        return wide
    return wide @ np.array(_LUMA)[:, None] if channels == 1 else wide.repeat(3, axis=2)


def _resized(pixels: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear, with the centres of the pixels in place."""
    for axis, size in ((0, height), (1, width)):
        own = pixels.shape[axis]
        if own == size:
            continue
        at = np.clip((np.arange(size) + 0.5) * own / size - 0.5, 0, own - 1)
        low = at.astype(np.intp)
        high = np.minimum(low + 1, own - 1)
        share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    return pixels


def _read_png(data: bytes) -> Pixels | None:
    """None for a kind of PNG that is not read here. Raises ValueError if it is damaged."""
    at, compressed, palette = len(PNG_HEAD), bytearray(), b""
    width, height, depth, kind, interlaced = struct.unpack_from(">IIBBxxB", data, at + 8)
    if width * height > IMAGE_PIXELS or not width * height:
        raise ValueError(f"it has {width} x {height} pixels")
    if depth != 8 or interlaced or kind not in _PNG_CHANNELS:
        return None
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, chunk = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if name == b"IDAT":
            compressed += chunk
        elif name == b"PLTE":
            palette = chunk
        at += 12 + size
    channels = _PNG_CHANNELS[kind]
    stride = width * channels
    room = height * (stride + 1)
    rows = zlib.decompressobj().decompress(bytes(compressed), room + 1)
    if len(rows) != room:
        raise ValueError("it does not have all its rows")
    found = _unfiltered(np.frombuffer(rows, np.uint8).reshape(height, stride + 1), channels)
    found = found.reshape(height, width, channels)
    if kind == 3:
        colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
        return colours[found[:, :, 0]]
    return found[:, :, : channels - (channels % 2 == 0)]  # without alpha


def _unfiltered(rows: Pixels, step: int) -> Pixels:
    """The rows without their filters. ``step`` is the size of a pixel in bytes."""
    made = np.zeros((rows.shape[0], rows.shape[1] - 1), np.uint8)
    above = np.zeros(rows.shape[1] - 1, np.uint8)
    for number, row in enumerate(rows):
        kind, line = row[0], row[1:]
        if kind == 0:
            above = line
        elif kind == 1:
            above = np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).ravel()
        elif kind == 2:
            above = line + above
        elif kind in (3, 4):
            above = _by_neighbours(bytes(line), bytes(above), step, paeth=kind == 4)
        else:
            raise ValueError(f"row {number} has the unknown filter {kind}")
        made[number] = above
    return made


def _by_neighbours(line: bytes, above: bytes, step: int, *, paeth: bool) -> Pixels:
    out = bytearray(len(line))
    for place, value in enumerate(line):
        left = out[place - step] if place >= step else 0
        up = above[place]
        if not paeth:
            out[place] = (value + ((left + up) >> 1)) & 255
            continue
        corner = above[place - step] if place >= step else 0
        guess = left + up - corner
        far_left, far_up, far_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
        if far_left <= far_up and far_left <= far_corner:
            near = left
        else:
            near = up if far_up <= far_corner else corner
        out[place] = (value + near) & 255
    return np.frombuffer(bytes(out), np.uint8)


def _read_ppm(data: bytes) -> Pixels | None:
    """A binary PGM or PPM. None if it is another format."""
    if data[:2] not in (b"P5", b"P6"):
        return None
    fields: list[int] = []
    at = 2
    while len(fields) < 3:
        while data[at : at + 1].isspace():
            at += 1
        if data[at : at + 1] == b"#":
            at = data.index(b"\n", at)
            continue
        end = at
        while data[end : end + 1].isdigit():
            end += 1
        fields.append(int(data[at:end]))
        at = end
    width, height, top = fields
    channels = 3 if data[1:2] == b"6" else 1
    if width * height > IMAGE_PIXELS or not width * height or top != 255:
        raise ValueError(f"it has {width} x {height} pixels of {top} levels")
    count = width * height * channels
    return np.frombuffer(data, np.uint8, count, at + 1).reshape(height, width, channels)


def _with_pillow(data: bytes, name: str) -> Pixels:
    try:
        pillow: Any = import_module("PIL.Image")
        unknown: type[OSError] = import_module("PIL").UnidentifiedImageError
    except ImportError as error:
        raise OperatorError(
            "bad_request",
            "This format of image is read with Pillow, which is not installed.",
            field=name,
            hint="Run `pip install pillow`, or convert the image to PNG or PPM.",
        ) from error
    try:
        with pillow.open(io.BytesIO(data)) as image:
            if image.width * image.height > IMAGE_PIXELS:
                raise _bad(name, f"The image has {image.width} x {image.height} pixels.")
            grey = image.mode in ("L", "1", "I", "F")
            found: Pixels = np.asarray(image.convert("L" if grey else "RGB"), np.uint8)
    except unknown as error:
        raise OperatorError(
            "bad_request",
            "The image is damaged, or has a format that Pillow does not read.",
            field=name,
            hint="Give a PNG, JPEG or PPM file.",
        ) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise _bad(name, f"The image is damaged: {error}.") from error
    return found.reshape(found.shape[0], found.shape[1], -1)


def _bad(name: str, message: str) -> OperatorError:
    return OperatorError("bad_request", message, field=name)
