"""The file in which the serving process marks the models that run, for the agent.

Records of RECORD_BYTES: one byte that is 1 while a release of the model runs, then the model's name
in UTF-8, ended by zeros. The file is mapped into memory, so its content survives any end of the
process. If the process ends, the marked models are those that ran.
"""

from typing import Final

RECORD_BYTES: Final = 128
RECORDS: Final = 64


def record(model: str) -> bytes:
    """The record of a model that does not run. A long name is cut."""
    return (b"\0" + model.encode())[:RECORD_BYTES].ljust(RECORD_BYTES, b"\0")


def marked_models(data: bytes) -> tuple[str, ...]:
    """The sorted names of the models that are marked in the file's content."""
    records = (data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES))
    marked = (one[1:].rstrip(b"\0") for one in records if one[:1] == b"\1")
    return tuple(sorted({name.decode(errors="replace") for name in marked if name}))
