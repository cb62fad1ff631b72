import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.base.entropy import SeededEntropy
from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import MASK64, check_name, device_hash, mix64, new_id


def unmix64(value: int) -> int:
    """The inverse of ``mix64``, which shows that mixing is one to one."""

    def unshift(x: int, by: int) -> int:
        result = x
        for _ in range(64 // by + 1):
            result = x ^ (result >> by)
        return result

    value = unshift(value, 31)
    value = value * pow(0x94D049BB133111EB, -1, 1 << 64) & MASK64
    value = unshift(value, 27)
    value = value * pow(0xBF58476D1CE4E5B9, -1, 1 << 64) & MASK64
    return unshift(value, 30)


@given(st.integers(0, MASK64))
def test_mixing_is_one_to_one(value: int) -> None:
    assert unmix64(mix64(value)) == value


def test_the_finaliser_has_the_published_vector() -> None:
    # splitmix64 with seed 0 gives 0xE220A8397B1DCDAF first; its state is then the golden gamma.
    assert mix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_devices_are_hashed_by_name_alone() -> None:
    assert device_hash("cam-1") == device_hash("cam-1")
    assert len({device_hash(f"cam-{n}") for n in range(10_000)}) == 10_000


def test_ids_sort_by_age() -> None:
    entropy = SeededEntropy(1)
    made = [new_id("ro", 1_700_000_000 + n, entropy) for n in range(50)]
    assert made == sorted(made)
    assert len(set(made)) == 50
    assert all(len(one) == len("ro-") + 16 for one in made)


@pytest.mark.parametrize("name", ["a", "cam-1.lyon_2", "A" * 63, "7"])
def test_names_of_the_field_are_accepted(name: str) -> None:
    assert check_name(name, field="name") == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "a b", "..", "a..b", "A" * 64, "é", "a\n"])
def test_other_names_are_refused_with_their_field(name: str) -> None:
    with pytest.raises(OperatorError) as caught:
        check_name(name, field="model")
    assert (caught.value.code, caught.value.field) == ("name_invalid", "model")
