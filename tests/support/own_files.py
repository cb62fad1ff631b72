"""The agent's own files in a test: their content without the digest, and their loss."""

from collections.abc import MutableMapping

from edgefleet.agent.own_files import unsealed


def copies(path: str) -> tuple[str, str]:
    """The places of both copies."""
    stem, dot, suffix = path.partition(".")
    return path, f"{stem}.copy{dot}{suffix}"


def content(files: MutableMapping[str, bytes], path: str) -> bytes:
    """The content of the first copy, which must be intact."""
    found = unsealed(files[path])
    assert found is not None, f"{path} is damaged"
    return found


def lose(files: MutableMapping[str, bytes], path: str) -> None:
    """Remove both copies."""
    for place in copies(path):
        files.pop(place, None)


def replace(files: MutableMapping[str, bytes], path: str, data: bytes) -> None:
    """Make ``data`` the only copy, as an agent wrote it that had neither digest nor second copy."""
    lose(files, path)
    files[path] = data
