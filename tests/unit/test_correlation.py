import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import correlation
from pipeline.correlation import correlate


def test_the_documented_example_is_true():
    assert doctest.testmod(correlation).failed == 0


def test_every_pair_of_types_is_correlated_once_in_alphabetical_order():
    series = {0: 1.0, 1: 2.0, 2: 4.0}
    pairs = [
        (c.sensor_type_a, c.sensor_type_b)
        for c in correlate({"c": series, "a": series, "b": series})
    ]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


def test_only_windows_that_both_have_count():
    found = correlate(
        {"a": {0: 1.0, 1: 2.0, 2: 3.0, 9: -50.0}, "b": {0: 2.0, 1: 4.0, 2: 6.0, 5: 99.0}}
    )
    assert (found[0].value, found[0].window_count) == (pytest.approx(1.0), 3)


@pytest.mark.parametrize("b", [{0: 1.0, 1: 2.0}, {0: 5.0, 1: 5.0, 2: 5.0}, {}])
def test_too_few_windows_or_a_constant_series_have_no_correlation(b):
    assert correlate({"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": b})[0].value is None


@given(st.lists(st.tuples(st.integers(-999, 999), st.integers(-999, 999)), min_size=3, max_size=40))
def test_it_is_the_pearson_correlation(points):
    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    found = correlate({"a": dict(enumerate(x)), "b": dict(enumerate(y))})[0]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert found.value is None
    else:
        assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
