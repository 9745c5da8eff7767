"""Many values in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petseg.system.distributions import Histogram, OverTime, Shares, Stage


@given(st.lists(st.floats(1e-5, 600), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentiles_are_within_5_percent(seconds: list[float], share: float) -> None:
    stage = Stage()
    for value in seconds:
        stage.add(value)
    exact = float(np.quantile(seconds, share, method="inverted_cdf"))
    found = stage.percentile(share)
    assert found is not None
    assert exact / 1.051 <= found <= exact * 1.051


def test_a_stage_without_items_has_no_percentiles() -> None:
    assert Stage().percentile(0.5) is None
    assert Stage().as_dict()["p99_seconds"] is None


def test_times_beyond_the_bins_are_counted() -> None:
    stage = Stage()
    for seconds in (0.0, 1e-9, 1e6):
        stage.add(seconds)
    assert stage.percentile(1.0) is not None
    assert int(stage.bins.sum()) == 3


def test_shares_to_the_percent() -> None:
    shares = Shares()
    assert shares.as_dict() is None
    for value in (0.0, 0.5, 1.0):
        shares.add(value)
    found = shares.as_dict()
    assert found is not None
    assert found["mean"] == pytest.approx(0.5)
    assert [place for place, count in enumerate(found["histogram"]) if count] == [0, 50, 100]


share = st.floats(0, 1)


@given(st.lists(share, min_size=1, max_size=200), st.sampled_from((0, 0.25, 0.5, 0.75, 1)))
def test_quantiles_of_a_histogram_are_within_a_thousandth(values: list[float], q: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert len(histogram) == len(values)
    assert histogram.mean == pytest.approx(np.mean(values))
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert histogram.quantile(q) == pytest.approx(exact, abs=0.0011)


def test_a_histogram_in_fewer_bins() -> None:
    histogram = Histogram()
    for value in (0.0, 0.5699, 0.57, 0.58, 1.0):
        histogram.add(value)
    found = histogram.grouped(100)
    assert found.sum() == 5
    assert (found[0], found[56], found[57], found[58], found[99]) == (1, 1, 1, 1, 1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_over_time_counts_each_where_it_belongs(times: list[float]) -> None:
    over_time = OverTime(0.25)
    for time in times:
        over_time.add(time)
    found = over_time.as_dict()
    assert found is not None
    begin, width, counts = found["begin_seconds"], found["bin_seconds"], found["counts"]
    assert 1 <= len(counts) <= 120
    assert counts[0]
    assert counts[-1]
    edges = begin + width * np.arange(len(counts) + 1)
    expected = np.bincount(np.digitize(times, edges) - 1, minlength=len(counts))
    assert counts == expected.tolist()


def test_bins_of_time_are_no_wider_than_they_must_be() -> None:
    over_time = OverTime(1.0)
    assert over_time.as_dict() is None
    for time in range(200):
        over_time.add(time)
    found = over_time.as_dict()
    assert found == {"begin_seconds": 0.0, "bin_seconds": 2.0, "counts": [2] * 100}
