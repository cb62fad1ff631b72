"""The choice of a GGUF file by measurement. The figures are those of two sets of kernels."""

from edgefleet.optimize.gguf.choice import GgufBudget, GgufMeasurement, choose

MIB = 1 << 20


def one(
    quant: str, size: float, memory: float, tokens: float, loss: float | None = None
) -> GgufMeasurement:
    return GgufMeasurement(
        quant=quant,
        size_bytes=int(size * MIB),
        peak_memory_bytes=int(memory * MIB),
        prompt_tokens_per_s=100,
        tokens_per_s=tokens,
        loss=loss,
    )


NEWER = [
    one("F16", 304, 326, 32.2), one("Q8_0", 162, 200, 69.7), one("Q4_0", 88, 111, 125.2),
    one("Q4_K_M", 93, 117, 66.6),
]  # fmt: skip
AVX2 = [
    one("F16", 304, 326, 28.7), one("Q8_0", 162, 200, 53.5), one("Q4_0", 88, 111, 59.6),
    one("Q4_K_M", 93, 117, 81.3),
]  # fmt: skip


def test_the_fastest_file_depends_on_the_class() -> None:
    best = [choose(measured, GgufBudget()).chosen for measured in (NEWER, AVX2)]
    assert [found.quant if found else None for found in best] == ["Q4_0", "Q4_K_M"]
    assert choose(NEWER, GgufBudget()).text == (
        "Q4_0 generates 125.2 tokens/s, 3.89 times F16, and its file is 3.45 times smaller."
    )


def test_a_file_outside_of_the_budget_is_refused_with_its_reason() -> None:
    found = choose(NEWER, GgufBudget(memory_bytes=115 * MIB, size_bytes=200 * MIB))
    assert found.chosen is not None
    assert found.chosen.quant == "Q4_0"
    assert found.refused["Q4_K_M"] == "it needs 117 MiB of memory, 115 MiB are allowed"
    sized = choose(NEWER, GgufBudget(size_bytes=100 * MIB)).refused
    assert sized["F16"] == "its file has 304 MiB, 100 MiB are allowed"


def test_a_file_that_loses_too_much_is_refused() -> None:
    measured = [
        one("F16", 4, 9, 10, 1.92),
        one("Q4_0", 1, 9, 40, 1.95),
        one("Q8_0", 2, 9, 20, 1.92),
    ]
    found = choose(measured, GgufBudget(added_loss=0.02))
    assert found.chosen is not None
    assert found.chosen.quant == "Q8_0"
    assert found.refused == {"Q4_0": "its loss is 0.030 nats higher, 0.020 are allowed"}


def test_the_smaller_of_two_equally_fast_files_is_chosen() -> None:
    found = choose(
        [one("F16", 4, 9, 10), one("Q8_0", 2, 9, 20), one("Q4_0", 1, 9, 20)], GgufBudget()
    )
    assert found.chosen is not None
    assert found.chosen.quant == "Q4_0"


def test_no_file_may_qualify() -> None:
    found = choose(NEWER, GgufBudget(memory_bytes=MIB))
    assert found.chosen is None
    assert found.text.startswith("No file qualifies. F16: it needs 326 MiB")
