"""The names of runtimes, which devices report and variants need."""

from typing import Final

GROUP: Final = "edgefleet.runtimes"
"""The group of entry points with users' own runtimes; the name of one is that of the runtime."""

BUILT_IN: Final = ("onnx", "tensorrt", "litert", "edgetpu")
"""The runtimes of edgefleet. The hub can read the files of these."""

ENGINES_VARIABLE: Final = "EDGEFLEET_ENGINES"
"""The folder of engines that a runtime builds on the device, as the agent gives it to serving."""
