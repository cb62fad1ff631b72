"""The settings of the fallback: texts of options, and the errors that name the wrong one."""

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.fallback import Address, BudgetLimits, FallbackSettings, When, read_fallback


def test_without_an_address_there_is_no_fallback() -> None:
    assert read_fallback("") is None


def test_the_defaults_are_overload_and_missing_models_within_a_small_budget() -> None:
    assert read_fallback("https://infer.example") == FallbackSettings(
        address=Address(
            tls=True, host="infer.example", port=443, path="", host_header="infer.example"
        ),
        when=When(overload=True, missing=True),
        budget=BudgetLimits(share=0.1, per_minute=60, bytes_per_day=100_000_000),
        timeout_s=5.0,
    )


def test_every_setting_is_read() -> None:
    assert read_fallback(
        "https://infer.example:8443/site/",
        when=" error, confidence=0.6, hedge=50ms ",
        budget="per-minute=7,share=2.5%",
        timeout_s="1.5",
        ca_file="ca.pem",
        token_file="token",
    ) == FallbackSettings(
        address=Address(
            tls=True, host="infer.example", port=8443, path="/site",
            host_header="infer.example:8443",
        ),
        when=When(error=True, confidence=0.6, hedge=0.05),
        budget=BudgetLimits(share=0.025, per_minute=7, bytes_per_day=100_000_000),
        timeout_s=1.5,
        ca_file="ca.pem",
        token_file="token",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "hedge"), [("p95", "p95"), ("p99", "p99"), ("0.5s", 0.5), ("1ms", 0.001)]
)
def test_a_hedge_is_a_percentile_or_a_time(text: str, hedge: str | float) -> None:
    found = read_fallback("http://h", when=f"hedge={text}")
    assert found is not None
    assert found.when == When(hedge=hedge)  # type: ignore[arg-type] # of the parameters


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"url": "infer.example:80"}, "fallback"),
        ({"url": "ftp://infer.example"}, "fallback"),
        ({"url": "https://user:secret@infer.example"}, "fallback"),
        ({"url": "https://infer.example/?token=a"}, "fallback"),
        ({"url": "https://infer.example:99999"}, "fallback"),
        ({"url": "https://infer.example/a\r\nx: y"}, "fallback"),
        ({"when": "always"}, "fallback_when"),
        ({"when": ""}, "fallback_when"),
        ({"when": "overload=yes"}, "fallback_when"),
        ({"when": "overload,overload"}, "fallback_when"),
        ({"when": "confidence"}, "fallback_when"),
        ({"when": "confidence=1.5"}, "fallback_when"),
        ({"when": "confidence=nan"}, "fallback_when"),
        ({"when": "hedge=p50"}, "fallback_when"),
        ({"when": "hedge=50"}, "fallback_when"),
        ({"when": "hedge=0ms"}, "fallback_when"),
        ({"budget": "share=0.1"}, "fallback_budget"),
        ({"budget": "share=101%"}, "fallback_budget"),
        ({"budget": "per-minute=0"}, "fallback_budget"),
        ({"budget": "bytes-per-day=-1"}, "fallback_budget"),
        ({"budget": "per-hour=1"}, "fallback_budget"),
        ({"timeout_s": "0"}, "fallback_timeout_s"),
        ({"timeout_s": "61"}, "fallback_timeout_s"),
        ({"ca_file": "ca.pem"}, "fallback_ca_file"),
        ({"token_file": "token"}, "fallback_token_file"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], field: str) -> None:
    url = given.pop("url", "http://infer.example")
    with pytest.raises(OperatorError) as wrong:
        read_fallback(url, **given)
    assert (wrong.value.code, wrong.value.field) == ("setting_invalid", field)
    assert "secret" not in str(wrong.value)


def test_a_token_may_go_in_plain_text_to_this_machine_alone() -> None:
    found = read_fallback("http://127.0.0.1:8501", token_file="token")
    assert found is not None
    assert found.token_file == "token"
