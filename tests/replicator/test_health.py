"""The table of :mod:`replicator.health`, line by line."""

from __future__ import annotations

import pytest

from replicator.health import SHUNNED_S, STORE_FAILURES_IN_A_ROW, STORE_REST_S, Health

NOW_S = 100.0


def opened() -> Health:
    health = Health()
    for _ in range(STORE_FAILURES_IN_A_ROW):
        health.failed(NOW_S)
    assert health.state(NOW_S) == "open"
    return health


def half_open() -> Health:
    health = opened()
    assert health.state(NOW_S + STORE_REST_S) == "half-open"
    return health


def test_a_source_is_trusted_at_first() -> None:
    assert Health().state(NOW_S) == "closed"
    assert Health().may_ask(NOW_S)


def test_row_50_the_third_failure_in_a_row_opens_the_breaker() -> None:
    health = Health()
    for expected in ("closed", "closed", "open"):
        health.failed(NOW_S)
        assert health.state(NOW_S) == expected
    assert not health.may_ask(NOW_S)


def test_a_success_in_between_starts_the_count_anew() -> None:
    health = Health()
    for _ in range(10):
        health.failed(NOW_S)
        health.failed(NOW_S)
        health.succeeded(NOW_S)
    assert health.state(NOW_S) == "closed"


def test_an_open_breaker_is_half_open_when_its_time_has_passed() -> None:
    health = opened()
    assert not health.may_ask(NOW_S + STORE_REST_S - 0.001)
    assert health.may_ask(NOW_S + STORE_REST_S)
    assert health.state(NOW_S + STORE_REST_S) == "half-open"


def test_a_success_of_a_half_open_source_closes_the_breaker() -> None:
    health = half_open()
    health.succeeded(NOW_S + STORE_REST_S)
    assert health.state(NOW_S + STORE_REST_S) == "closed"
    health.failed(NOW_S + STORE_REST_S)
    assert health.may_ask(NOW_S + STORE_REST_S), "its old failures are forgotten"


def test_one_failure_of_a_half_open_source_opens_the_breaker_again() -> None:
    health = half_open()
    health.failed(NOW_S + STORE_REST_S)
    assert not health.may_ask(NOW_S + STORE_REST_S)
    assert not health.may_ask(NOW_S + 2 * STORE_REST_S - 0.001)
    assert health.state(NOW_S + 2 * STORE_REST_S) == "half-open"


@pytest.mark.parametrize("before", [Health, opened, half_open])
def test_row_53_one_lie_opens_the_breaker_for_long_whatever_was_before(
    before: type[Health],
) -> None:
    health = before()
    now_s = NOW_S + STORE_REST_S
    health.lied(now_s)
    assert health.state(now_s + SHUNNED_S - 0.001) == "open"
    assert health.state(now_s + SHUNNED_S) == "half-open"


def test_row_53_the_success_of_a_read_begun_before_a_lie_makes_up_for_nothing() -> None:
    health = Health()
    health.lied(NOW_S)
    health.succeeded(NOW_S + 1)
    assert health.state(NOW_S + 1) == "open"


def test_a_failure_after_a_lie_does_not_shorten_its_time() -> None:
    health = Health()
    health.lied(NOW_S)
    health.failed(NOW_S + 1)
    assert not health.may_ask(NOW_S + SHUNNED_S - 0.001)
