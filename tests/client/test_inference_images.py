"""Images: reading PNG and PPM, and the way into an input."""

import struct
import zlib

import numpy as np
import pytest

from edgefleet.base.errors import EdgefleetError
from edgefleet.client.inference.images import Scaling, image_tensor, read_image
from edgefleet.client.inference.model_info import TensorInfo

RANDOM = np.random.default_rng(3)
COLOURS = {0: 1, 2: 3, 4: 2, 6: 4}


def info(*shape: int, datatype: str = "FP32") -> TensorInfo:
    return TensorInfo(name="x", datatype=datatype, shape=shape)


def paeth(left: int, up: int, corner: int) -> int:
    """RFC 2083, section 6.6."""
    guess = left + up - corner
    near = {left: abs(guess - left), up: abs(guess - up), corner: abs(guess - corner)}
    return next(one for one in (left, up, corner) if near[one] == min(near.values()))


def filtered(pixels: np.ndarray, kinds: tuple[int, ...]) -> bytes:
    """The rows of a PNG, with the filters ``kinds`` in turn, as RFC 2083 defines them."""
    height, width, step = pixels.shape
    flat = pixels.reshape(height, width * step).astype(int)
    made = bytearray()
    for y in range(height):
        kind = kinds[y % len(kinds)]
        made.append(kind)
        for x in range(width * step):
            left = flat[y, x - step] if x >= step else 0
            up = flat[y - 1, x] if y else 0
            corner = flat[y - 1, x - step] if y and x >= step else 0
            guess = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]
            made.append((flat[y, x] - guess) % 256)
    return bytes(made)


def png(kind: int, size: tuple[int, int], rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", size[1], size[0], 8, kind, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", head), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        made += struct.pack(">I", len(data)) + name + data + bytes(4)
    return made


@pytest.mark.parametrize("kind", COLOURS)
@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (4, 3, 2, 1, 0)])
def test_a_png_is_read_whatever_its_filters(kind: int, filters: tuple[int, ...]) -> None:
    channels = COLOURS[kind]
    pixels = RANDOM.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    read = read_image(png(kind, (5, 7), filtered(pixels, filters)), "a.png")
    colours = 1 if channels < 3 else 3
    assert read.tolist() == pixels[:, :, :colours].tolist()


def test_a_palette_gives_colours() -> None:
    palette = bytes([1, 2, 3, 4, 5, 6])
    read = read_image(png(3, (1, 2), b"\0\x01\x00", (b"PLTE", palette)), "a.png")
    assert read.tolist() == [[[4, 5, 6], [1, 2, 3]]]


def test_a_ppm_is_read() -> None:
    assert read_image(b"P6 # two\n2 1\n255\n" + bytes(range(6)), "a").tolist() == [
        [[0, 1, 2], [3, 4, 5]]
    ]
    assert read_image(b"P5\n1 2 255\n\x07\x08", "a").tolist() == [[[7]], [[8]]]


@pytest.mark.parametrize(
    "data",
    [
        png(0, (2, 2), b"\0\1\2\0\1"),
        png(0, (2, 2), b"\0\1\2\7\1\2"),
        png(0, (60_000, 60_000), b""),
        png(3, (1, 1), b"\0\x05", (b"PLTE", b"\1\2\3")),
        b"\x89PNG\r\n\x1a\n",
        b"P5\n4 4 255\n\0",
        b"P6\n1 1 65535\n\0\0\0\0\0\0",
        b"P5\nx",
    ],
)
def test_a_damaged_image_is_refused_by_its_name(data: bytes) -> None:
    with pytest.raises(EdgefleetError, match="damaged") as refused:
        read_image(data, "a.png")
    assert (refused.value.code, refused.value.field) == ("bad_request", "a.png")


def test_an_image_fits_each_layout() -> None:
    pixels = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    first = image_tensor(pixels, info(-1, 3, 2, 2), Scaling(1.0))
    last = image_tensor(pixels, info(-1, 2, 2, 3), Scaling(1.0))
    open_size = image_tensor(pixels, info(1, 3, -1, -1), Scaling(1.0))
    assert first[0].tolist() == pixels.transpose(2, 0, 1).tolist()
    assert last[0].tolist() == pixels.tolist()
    assert open_size.tolist() == first.tolist()
    grey = image_tensor(np.full((2, 2, 3), 51, np.uint8), info(-1, 4), Scaling())
    assert grey == pytest.approx(np.full((1, 4), 0.2))
    assert image_tensor(pixels, info(-1, 12), Scaling(1.0)).ravel().tolist() == list(range(12))


def test_an_image_is_resized_by_its_neighbours() -> None:
    row = np.array([[[0], [100]]], np.uint8)
    wide = image_tensor(row, info(1, 1, 1, 4), Scaling(1.0))
    assert wide.ravel().tolist() == [0.0, 25.0, 75.0, 100.0]
    assert image_tensor(row, info(1, 1, 1, 1), Scaling(1.0)).ravel().tolist() == [50.0]


def test_pixels_are_scaled_by_channel() -> None:
    pixels = np.full((1, 1, 3), 255, np.uint8)
    scaling = Scaling(None, (0.5, 0.0, 1.0), (0.5, 2.0, 1.0))
    assert image_tensor(pixels, info(1, 3, 1, 1), scaling).ravel().tolist() == [1.0, 0.5, 0.0]
    whole = image_tensor(pixels, info(1, 3, 1, 1, datatype="UINT8"), Scaling())
    assert whole.ravel().tolist() == [255, 255, 255]
    with pytest.raises(EdgefleetError, match="1 or 3 numbers"):
        image_tensor(pixels, info(1, 3, 1, 1), Scaling(mean=(0.1, 0.2)))


@pytest.mark.parametrize("shape", [(-1, 5), (1,), (1, 2, 3, 4, 5), (1, 5, 8, 8)])
def test_an_input_that_is_no_image_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(EdgefleetError, match="no image") as refused:
        image_tensor(np.zeros((2, 2, 3), np.uint8), info(*shape), Scaling())
    assert refused.value.field == "x"
