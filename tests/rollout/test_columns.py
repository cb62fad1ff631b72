"""A selection of rows returns the same rows, whatever number of them is asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.rollout.fleet.columns import RowSelection, gather


@given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=300), st.integers(1, 7))
def test_chosen_rows_are_those_under_the_mask(drawn: list[tuple[int, bool]], count: int) -> None:
    marked = dict(sorted(drawn))
    rows = np.array(list(marked), np.int64)
    mask = np.array(list(marked.values()), np.bool_)
    chosen = RowSelection(rows, mask)
    assert len(chosen) == mask.sum()
    assert chosen.first(count).tolist() == rows[mask][:count].tolist()
    assert chosen.all().tolist() == rows[mask].tolist()
    assert RowSelection.of(rows).all().tolist() == rows.tolist()


@given(st.sets(st.integers(0, 60)))
def test_gathered_entries_are_those_of_the_column(rows: set[int]) -> None:
    column = np.arange(100) * 7
    ascending = np.array(sorted(rows), np.int64)
    assert gather(column, ascending).tolist() == column[ascending].tolist()
