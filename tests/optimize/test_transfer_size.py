"""Sizes of transfers: compressed, and as a difference from an earlier artifact."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from edgefleet.optimize.transfer_size import chunks, compressed_size, delta_size

RANDOM = np.random.default_rng(3)
DATA = RANDOM.bytes(300_000)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    path = tmp_path / "earlier"
    path.write_bytes(DATA)
    return path


def size_of(data: bytes, earlier: Path) -> int:
    path = earlier.parent / "new"
    path.write_bytes(data)
    return delta_size(path, earlier)


def test_chunks_are_the_data_in_pieces_of_four_kibibytes() -> None:
    pieces = list(chunks(DATA))
    assert b"".join(pieces) == DATA
    assert 40 < len(pieces) < 150
    assert b"".join(chunks(b"")) == b""
    assert b"".join(chunks(bytes(200_000))) == bytes(200_000)


def test_the_compressed_size_is_that_of_zlib(earlier: Path) -> None:
    earlier.write_bytes(bytes(1000) + DATA)
    assert compressed_size(earlier) == pytest.approx(len(zlib.compress(bytes(1000) + DATA)), abs=64)


def test_equal_files_cost_references_only(earlier: Path) -> None:
    assert size_of(DATA, earlier) < 2_000


def test_a_changed_place_costs_its_chunks(earlier: Path) -> None:
    changed = DATA[:150_000] + RANDOM.bytes(100) + DATA[150_100:]
    assert 1_000 < size_of(changed, earlier) < 30_000


def test_inserted_bytes_move_no_other_chunk(earlier: Path) -> None:
    assert size_of(DATA[:1_000] + b"inserted" + DATA[1_000:], earlier) < 30_000


def test_other_data_costs_all_of_it(earlier: Path) -> None:
    assert size_of(RANDOM.bytes(300_000), earlier) > 299_000


def test_cuts_do_not_depend_on_how_the_data_is_read() -> None:
    """The data is hashed in pieces of 4 MiB: a cut near their border is found in both."""
    long = RANDOM.bytes((4 << 20) + 200_000)
    whole, late = list(chunks(long)), list(chunks(long[(4 << 20) - 100_000 :]))
    assert len(set(late) & set(whole)) > len(late) * 0.8
