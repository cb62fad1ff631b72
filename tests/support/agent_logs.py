"""The logs of the agents that this process started. A failed test shows them, see conftest.py.

A module of its own: every run of the tests loads it, and no model library with it.
"""

from pathlib import Path

LOGS: list[Path] = []
