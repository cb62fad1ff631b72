"""Limits that every package shares. Limits of one package are in its ``limits.py``."""

from typing import Final

NAME_CHARS: Final = 63
LABELS_PER_DEVICE: Final = 32
MODELS_PER_DEVICE: Final = 16
LABEL_VALUE_CHARS: Final = 63
DETAIL_CHARS: Final = 500
