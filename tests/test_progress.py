"""One bar for many nodes: what is left, and how long it takes."""

from __future__ import annotations

import pytest

from safetydpo_kedro import progress
from safetydpo_kedro.progress import SharedProgress, progress_of, start, stop

TASKS = {"a/images": "drawing", "b/images": "drawing", "a/judged": "judging", "b/judged": "judging"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def shared(clock):
    shared = SharedProgress(TASKS)
    yield shared
    shared.close()


def test_tasks_that_have_not_begun_are_as_large_as_the_largest(shared):
    assert shared.left() == {"drawing": 0, "judging": 0} and shared.seconds_left() is None
    shared.begin("a/images", 100, done=40)
    assert shared.left() == {"drawing": 160, "judging": 200}
    shared.begin("b/images", 0, done=0)  # a variant that is left out
    assert shared.left() == {"drawing": 60, "judging": 200}


def test_time_left_knows_that_judging_is_faster_than_drawing(shared, clock):
    shared.begin("a/images", 10, done=0)
    clock[0] = 20
    shared.advance("a/images", 10, seconds=20)
    assert shared.seconds_left() == pytest.approx(30 * 2)  # all that is known is two a piece
    shared.begin("a/judged", 10, done=0)
    clock[0] = 21
    shared.advance("a/judged", 10, seconds=1)
    assert shared.left() == {"drawing": 10, "judging": 10}
    assert shared.seconds_left() == pytest.approx(10 * 2 + 10 * 0.1)


def test_tasks_that_run_at_once_take_less_time(shared, clock):
    for task in ("a/images", "b/images"):
        shared.begin(task, 10, done=0)
    clock[0] = 10
    for task in ("a/images", "b/images"):
        shared.advance(task, 5, seconds=10)
    assert shared.seconds_left() == pytest.approx((10 * 2 + 20 * 2) / 2)


def test_only_tasks_of_a_started_progress_report_to_it(shared):
    assert progress_of("a/images") is None
    start(shared)
    assert progress_of("a/images") is shared and progress_of("latent_cache") is None
    stop(shared)
    stop(shared)
    assert progress_of("a/images") is None


def test_other_processes_leave_the_bar_alone(shared, monkeypatch):
    start(shared)
    try:
        monkeypatch.setattr(progress.os, "getpid", lambda: -1)
        assert progress_of("a/images") is None
    finally:
        stop(shared)
