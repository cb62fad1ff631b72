"""Limits that every package shares. Limits of one package are in its ``limits.py``."""

from typing import Final

NAME_CHARS: Final = 63
LABELS_PER_DEVICE: Final = 32
MODELS_PER_DEVICE: Final = 16
LABEL_VALUE_CHARS: Final = 63
COMPARISON_CHARS: Final = 64
COMPARISONS: Final = 32  # of golden sets, that one device has
DETAIL_CHARS: Final = 500
