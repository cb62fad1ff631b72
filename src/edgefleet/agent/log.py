"""The log on standard error: one line per event, as text or as JSON."""

import json
import logging
import time
from typing import Final

from edgefleet.base.texts import one_line

LOGGER: Final = logging.getLogger("edgefleet.agent")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f"{at} {record.levelname.lower():7} {one_line(record.getMessage())}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "text": record.getMessage(),
        }
        return json.dumps(fields)


def start(*, as_json: bool) -> None:
    """Write the agent's log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if as_json else _Lines())
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
