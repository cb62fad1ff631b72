"""The target of a request: its path and its query."""

from urllib.parse import unquote_to_bytes, urlsplit


def read_target(url: bytes) -> tuple[str, str]:
    """The path, percent-decoded, and the query, as it is. Raises ValueError if one is no text."""
    path, _, query = url.partition(b"?")
    if not path.startswith(b"/"):  # absolute form, or *
        path = urlsplit(path).path or b"/"
    if b"%" in path:
        path = unquote_to_bytes(path)
    return path.decode("utf-8"), query.decode("ascii")
