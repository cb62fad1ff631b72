"""The part of a runtime's error that names the cause."""

import re
from typing import Final

from edgefleet.base.texts import shortened

_PREFIX: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_PLACE: Final = re.compile(r"/\S+\.(?:cc|h|cpp|cu):\d+ ")


def cause(error: BaseException, chars: int) -> str:
    """The text of ``error`` on one line, without source files and C++ signatures of the runtime.

    A longer text loses its middle: the runtime begins with the node and ends with the reason.
    """
    text = _PREFIX.sub("", " ".join(str(error).split()))
    return shortened(_without_signatures(text), chars) or type(error).__name__


def _without_signatures(text: str) -> str:
    """Remove each source position, with the signature of the function behind it."""
    while found := _PLACE.search(text):
        text = text[: found.start()] + text[_end_of_signature(text, found.end()) :]
    return text


def _end_of_signature(text: str, start: int) -> int:
    """The end of ``name(arguments) const [with T = x] `` at ``start``. ``start`` if it is none."""
    opened = text.find("(", start)
    if opened < 0:
        return start
    depth = 0
    for at in range(opened, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            rest = re.match(r"(?: const)?(?: \[with [^\]]*\])? ", text[at + 1 :])
            return at + 1 + (rest.end() if rest else 0)
    return start
