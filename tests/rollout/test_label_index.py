"""The index of label sets answers a selector as a look at each set does."""

from hypothesis import given
from hypothesis import strategies as st

from edgefleet.rollout.fleet.label_index import LabelIndex
from edgefleet.rollout.fleet.selector import Operator, Requirement, Selector

KEYS = st.sampled_from(["site", "tier", "serial"])
VALUES = st.sampled_from(["", "a", "b", "c"])
SETS = st.lists(st.dictionaries(KEYS, VALUES), max_size=12)
SELECTORS = st.builds(
    lambda found: Selector(tuple(found)),
    st.lists(
        st.builds(Requirement, KEYS, st.sampled_from(Operator), st.frozensets(VALUES, min_size=1)),
        max_size=3,
    ),
)


@given(SETS, SELECTORS)
def test_it_is_what_each_set_says(sets: list[dict[str, str]], selector: Selector) -> None:
    index = LabelIndex()
    for labels in sets:
        index.add(labels)
    assert index.matching(selector).tolist() == [selector.matches(labels) for labels in sets]
