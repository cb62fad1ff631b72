"""The adapter of ai-edge-quantizer: the only module that knows the package.

The project renames itself to litert-quantizer, with the same modules inside, so either package will
do. What the quantizer does by default and a cache of variants cannot use is replaced here:

- it calibrates with 16 threads. Here one thread runs, so that sums have one order and the same
  arguments give the same bytes.
- it averages the ranges of the batches (a moving average with 0.95), so the order and the size of
  batches change the result. Here a range is the least minimum and the greatest maximum.
- it leaves an operator that it cannot quantise in float without a word. ``left_float`` of
  ``graph`` names such operators.
"""

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.samples import Array

PACKAGES: Final = ("ai_edge_quantizer", "litert_quantizer")
QUANTISABLE: Final = (
    "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "BATCH_MATMUL",
    "EMBEDDING_LOOKUP",
)  # fmt: skip
"""The operators with weights, by the names of the quantizer."""

Kind = Literal["static", "dynamic", "weights", "half", "float"]


class Rule:
    """One line of a recipe of the quantizer. Later rules win.

    ``scope`` is a regular expression over the names of an operator's outputs, ``operator`` a type
    of operators (``*``: all). ``kind`` is the number format; ``float`` changes nothing.
    """

    __slots__ = ("activation_bits", "kind", "operator", "per_channel", "scope")

    def __init__(
        self,
        kind: Kind,
        *,
        scope: str = ".*",
        operator: str = "*",
        activation_bits: int = 8,
        per_channel: bool = True,
    ) -> None:
        self.kind = kind
        self.scope = scope
        self.operator = operator
        self.activation_bits = activation_bits
        self.per_channel = per_channel


def versions() -> dict[str, str]:
    """The package and its version. Raises PublisherError ``step_failed`` without one."""
    for name in PACKAGES:
        distribution = name.replace("_", "-")
        try:
            return {distribution: version(distribution)}
        except PackageNotFoundError:
            continue
    raise _missing()


def quantised(
    model: bytes, rules: Sequence[Rule], signature: str, batches: Sequence[Mapping[str, Array]]
) -> bytes:
    """The file with the rules applied. ``batches`` are inputs of ``signature``, by its names.

    Raises whatever the package raises.
    """
    package = _package()
    recipes = _module(package, "recipe_manager").RecipeManager()
    for rule in rules:
        _add(package, recipes, rule)
    tool = _module(package, "quantizer").Quantizer(model, recipes.get_quantization_recipe())
    ranges = None
    if tool.need_calibration:
        calibrator = _module(package, "calibrator").Calibrator(
            model, num_threads=1, qsv_update_func=_module(package, "utils.qsv_utils").min_max_update
        )
        calibrator.calibrate({signature: list(batches)}, recipes)
        ranges = calibrator.get_model_qsvs()
    result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _add(package: str, recipes: Any, rule: Rule) -> None:
    types = _module(package, "qtyping")
    algorithms = _module(package, "algorithm_manager").AlgorithmName
    operator = types.TFLOperationName(rule.operator)
    granularity = types.QuantGranularity
    channels = granularity.CHANNELWISE if rule.per_channel else granularity.TENSORWISE
    match rule.kind:
        case "static":
            recipes.add_static_config(rule.scope, operator, rule.activation_bits, 8, channels)
        case "dynamic":
            recipes.add_dynamic_config(rule.scope, operator, 8, channels)
        case "weights":
            recipes.add_weight_only_config(rule.scope, operator, 8, channels)
        case "half":
            recipes.add_weight_only_config(
                rule.scope,
                operator,
                16,
                granularity.TENSORWISE,
                algorithms.FLOAT_CASTING,
            )
        case "float":
            recipes.add_quantization_config(
                rule.scope, operator, algorithm_key=algorithms.NO_QUANTIZE
            )


def _package() -> str:
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        else:
            return name
    raise _missing()


def _module(package: str, name: str) -> Any:
    return importlib.import_module(f"{package}.{name}")


def _missing() -> PublisherError:
    return PublisherError(
        "step_failed",
        "ai-edge-quantizer is not installed, which makes TFLite variants.",
        hint="Run: pip install 'edgefleet[optimize-tflite]'",
    )
