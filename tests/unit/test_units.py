from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import InputError
from glmlab.units import format_bytes, format_duration, format_ms, parse_budget


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (268_435_456, "268 MB"),
        (96e9, "96 GB"), (1.5e12, "1.5 TB"), (-2e9, "-2 GB"),
        (999_999, "1 MB"), (999.7e6, "1 GB"),  # not 1e+03 kB
    ],
)  # fmt: skip
def test_bytes_are_decimal(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.00042, "0.42 µs"), (0.5, "0.5 ms"), (12.345, "12.3 ms"), (99.96, "100 ms"),
        (1234.5, "1234 ms"), (123_456.0, "123456 ms"),
    ],
)  # fmt: skip
def test_milliseconds_have_three_digits(ms, text):
    assert format_ms(ms) == text


@given(st.floats(1e-6, 1e9))  # from a nanosecond
def test_milliseconds_are_never_in_exponent_form(ms):
    assert "e" not in format_ms(ms)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.85, "850 ms"), (3.2, "3.2 s"), (125, "2 min 05 s"), (3720, "1 h 02 min"), (0, "0 ms"),
        (90_000, "25 h 00 min"), (125.96, "2 min 06 s"), (119.6, "2 min 00 s"), (59.97, "1 min 00 s"),
        (0.9996, "1.0 s"), (3599.7, "1 h 00 min"), (7199, "2 h 00 min"),
    ],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("50", {"trials": 50}), (" 7 ", {"trials": 7}), ("90s", {"seconds": 90}), ("10m", {"seconds": 600}),
        ("1h30m", {"seconds": 5400}), ("1.5H", {"seconds": 5400}), ("1d", {"seconds": 86400}),
    ],
)  # fmt: skip
def test_a_budget_is_a_number_of_trials_or_a_time(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "0m", "10 m", "10x", "m", "1h30", "5.5", "ten", "10min", "²", "1e3s"]
)
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(InputError) as error:
        parse_budget(text)
    assert str(error.value).startswith(f"budget = {text!r}: expected")
    assert "10m" in str(error.value)
