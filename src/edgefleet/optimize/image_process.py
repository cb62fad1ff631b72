"""Reads images into one array: a child process, see ``child``. Damaged images end only it."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.optimize.child import serve_child
from edgefleet.optimize.limits import IMAGE_BYTES, IMAGE_PIXELS
from edgefleet.optimize.preprocessing import Preprocessing
from edgefleet.optimize.samples import Array
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_HINT: Final = "Remove the file, or convert it to JPEG or PNG with 8 bits a channel."
_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})  # 8 bits


class ImageRequest(Wire, frozen=True, kw_only=True):
    """Read the files into the array ``made``, FP32, images first."""

    files: tuple[str, ...]
    preprocessing: Preprocessing
    made: str


class ImageAnswer(Wire, frozen=True, kw_only=True):
    """The array is written."""


def read(request: ImageRequest) -> ImageAnswer:
    """Raises PublisherError ``evaluation_invalid`` with the file, DeviceError without Pillow."""
    if find_spec("PIL") is None:
        raise DeviceError(
            "runtime_missing",
            "Reading images needs Pillow, which is not installed.",
            hint="Run: pip install 'edgefleet[optimize-images]'; or save the inputs as .npz.",
        )
    how = request.preprocessing
    shape = (len(request.files), *how.shape)
    made: Any = np.lib.format.open_memmap(request.made, "w+", np.float32, shape)
    for number, name in enumerate(request.files):
        made[number] = prepared(Path(name), how)
    made.flush()
    return ImageAnswer()


def prepared(path: Path, how: Preprocessing) -> Array:
    """One image as a case. Orientation in EXIF is not applied, as training tools do not."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    if path.stat().st_size > IMAGE_BYTES:
        raise _wrong(path, f"It has more than {IMAGE_BYTES:,} bytes.")
    try:
        with Image.open(path) as image:
            if image.width * image.height > IMAGE_PIXELS:
                raise _wrong(path, f"It has more than {IMAGE_PIXELS:,} pixels.")
            if image.mode not in _MODES:
                raise _wrong(path, f"It has pixels of the kind {image.mode}, not of 8 bits.")
            plain = _resized(image.convert("L" if how.color == "grey" else "RGB"), how, path)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError,
            EOFError, IndexError) as error:  # fmt: skip
        raise _wrong(path, f"It cannot be read: {error}.") from error
    pixels = np.asarray(plain, np.float32).reshape(*how.size, how.channels)
    if how.color == "bgr":
        pixels = pixels[..., ::-1]
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    values = (pixels / np.float32(255) - mean) / std
    return np.moveaxis(values, -1, 0) if how.layout == "nchw" else values


def _resized(image: "PilImage", how: Preprocessing, path: Path) -> "PilImage":
    from PIL.Image import Resampling  # noqa: PLC0415

    height, width = how.size
    if image.size == (width, height):
        return image
    if how.resize == "none":
        raise _wrong(
            path, f"It has {image.height}x{image.width} pixels, and resize=none wants "
            f"{height}x{width}."
        )  # fmt: skip
    if how.resize == "stretch":
        return image.resize((width, height), Resampling.BILINEAR)
    scale = max(width / image.width, height / image.height)
    scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    larger = image.resize(scaled, Resampling.BILINEAR)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return larger.crop((left, top, left + width, top + height))


def _wrong(path: Path, message: str) -> PublisherError:
    return PublisherError("evaluation_invalid", message, field=path.name, hint=_HINT)


if __name__ == "__main__":
    sys.exit(serve_child(ImageRequest, read))
