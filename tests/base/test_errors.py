import pytest

from edgefleet.base.errors import (
    CATALOG,
    DeviceError,
    EdgefleetError,
    InternalError,
    OperatorError,
    Party,
    PublisherError,
    error_from_code,
)


@pytest.mark.parametrize("code", sorted(CATALOG))
def test_each_code_comes_back_as_the_class_of_who_must_act(code: str) -> None:
    error = error_from_code(code, "Said so.", field="x")
    assert error.party is CATALOG[code].party
    assert (error.code, error.field, error.status) == (code, "x", CATALOG[code].status)
    assert error.hint


@pytest.mark.parametrize("code", sorted(CATALOG))
def test_each_entry_can_be_acted_on(code: str) -> None:
    kind = CATALOG[code]
    assert 400 <= kind.status <= 599
    assert kind.hint.endswith(".")


def test_an_error_is_raised_by_the_party_that_can_mend_it() -> None:
    with pytest.raises(AssertionError, match="belongs to publisher"):
        OperatorError("not_a_model", "Wrong class.")


def test_a_code_from_a_newer_peer_becomes_ours_and_keeps_its_name() -> None:
    error = error_from_code("flux_exhausted", "No flux.")
    assert isinstance(error, InternalError)
    assert "flux_exhausted" in error.message


def test_the_text_names_code_field_and_next_step() -> None:
    text = str(
        PublisherError("model_is_pickle", "It starts with a pickle.", field="variant[0].file")
    )
    assert text.startswith("model_is_pickle (variant[0].file): It starts with a pickle.")
    assert "Export the model to ONNX" in text


def test_every_party_has_a_class() -> None:
    parties = {kind.party for kind in EdgefleetError.__subclasses__()}
    assert parties == set(Party)
    assert DeviceError.party is Party.DEVICE
