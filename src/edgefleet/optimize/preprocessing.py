"""How an image file becomes an input of a model. The publisher states it: nothing is guessed."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, ValidationError, convert

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.wire import Wire

Side = Annotated[int, Meta(ge=1, le=16_384)]
Deviation = Annotated[float, Meta(gt=0)]


class Preprocessing(Wire, frozen=True, kw_only=True):
    """Preprocessing of images: ``(pixel / 255 - mean) / std`` for each channel.

    ``size`` is height and width in pixels. ``resize``: ``stretch`` changes the proportions;
    ``crop`` scales the shorter side to the size and takes the middle; ``none`` refuses images of
    another size. All scaling is bilinear with antialiasing. ``mean`` and ``std`` have one value for
    each channel. ``layout``: channels first or last.
    """

    size: tuple[Side, Side]
    mean: tuple[float, ...]
    std: tuple[Deviation, ...]
    layout: Literal["nchw", "nhwc"]
    resize: Literal["stretch", "crop", "none"] = "stretch"
    color: Literal["rgb", "bgr", "grey"] = "rgb"

    @property
    def channels(self) -> int:
        return 1 if self.color == "grey" else 3

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one case."""
        if self.layout == "nchw":
            return (self.channels, *self.size)
        return (*self.size, self.channels)


_KEYS = ("size", "mean", "std", "layout")


def preprocessing_of(given: Mapping[str, object]) -> Preprocessing:
    """From the keys of the command.

    ``size`` may be a text such as ``224x224``; ``mean`` and ``std`` one number, or a text such as
    ``0.5,0.5,0.5``. Raises OperatorError ``setting_invalid`` with the key.
    """
    for key in _KEYS:
        if key not in given:
            raise _wrong(key, f"{key!r} is missing.")
    values = dict(given)
    values["size"] = _numbers(given["size"], "x")
    values["mean"], values["std"] = (_numbers(given[key], ",") for key in ("mean", "std"))
    try:
        made = convert(values, Preprocessing)
    except ValidationError as error:
        key = next((one for one in values if f"$.{one}" in str(error)), "preprocess")
        raise _wrong(key, f"{error}.") from error
    for key, numbers in (("mean", made.mean), ("std", made.std)):
        if len(numbers) != made.channels:
            raise _wrong(
                key, f"{key} has {len(numbers)} numbers, and color={made.color} has "
                f"{made.channels} channels."
            )  # fmt: skip
    return made


def _numbers(value: object, separator: str) -> object:
    """The numbers in a text, or as given."""
    if isinstance(value, int | float):
        return [value]
    if not isinstance(value, str):
        return value
    try:
        return [int(one) if separator == "x" else float(one) for one in value.split(separator)]
    except ValueError:
        return value


def _wrong(key: str, message: str) -> OperatorError:
    return OperatorError(
        "setting_invalid",
        f"The preprocessing of the images is not complete. {message}",
        field=f"preprocess.{key}",
        hint="State it as in the training: size=224x224 mean=0.485,0.456,0.406 "
        "std=0.229,0.224,0.225 layout=nchw, and resize=crop, color=bgr where they apply.",
    )
