"""The options that ``infer`` and ``bench`` share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgefleet.cli.values import DURATION, WrongValue

if TYPE_CHECKING:
    from edgefleet.client.inference.images import Scaling

F = TypeVar("F", bound=Callable[..., Any])


class Numbers(click.ParamType["tuple[float, ...]"]):
    """Numbers separated by commas: ``0.485,0.456,0.406``."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> "tuple[float, ...]":
        if isinstance(value, (tuple, list)):
            return tuple(float(one) for one in value)
        try:
            return tuple(float(one) for one in str(value).split(","))
        except ValueError:
            raise WrongValue(
                f"{value!r} is not a list of numbers.", "0.5 or 0.485,0.456,0.406", param, ctx
            ) from None


@dataclass(frozen=True, slots=True)
class Given:
    """Values of the shared options."""

    address: str
    release: str | None
    outputs: tuple[str, ...]
    binary: bool | None
    timeout: float
    divide: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def scaling(self) -> "Scaling":
        from edgefleet.client.inference.images import Scaling

        return Scaling(self.divide, self.mean, self.std)


def inference_options(function: F) -> F:
    """The options of ``Given``."""
    for option in reversed(
        (
            click.option(
                "--address",
                default="127.0.0.1:8500",
                metavar="HOST:PORT",
                help="The device's inference port.",
            ),
            click.option(
                "--release", metavar="RELEASE", help="Fail unless this release is active."
            ),
            click.option(
                "--output",
                "outputs",
                multiple=True,
                metavar="NAME",
                help="An output to ask for; may be repeated. Default: all outputs.",
            ),
            click.option(
                "--binary/--as-json",
                default=None,
                help="How tensors are sent. Default: large ones, FP16 and BF16 in binary.",
            ),
            click.option(
                "--timeout",
                type=DURATION,
                default="10s",
                metavar="DURATION",
                help="Longest wait for one answer.",
            ),
            click.option(
                "--divide",
                type=float,
                help="Divide the pixels of an image by this. Default: 255 for float inputs.",
            ),
            click.option(
                "--mean",
                type=Numbers(),
                default="0",
                metavar="NUMBERS",
                help="Subtract this from divided pixels: one number, or one for each channel.",
            ),
            click.option(
                "--std",
                type=Numbers(),
                default="1",
                metavar="NUMBERS",
                help="Then divide by this: one number, or one for each channel.",
            ),
        )
    ):
        function = option(function)
    return function


def check_outputs(wanted: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises OperatorError ``bad_request`` for an output that the model does not have."""
    from edgefleet.base.errors import OperatorError

    for name in wanted:
        if name not in known:
            raise OperatorError(
                "bad_request",
                f"The model has no output {name!r}.",
                field="--output",
                hint=f"Its outputs are {', '.join(known)}.",
            )
