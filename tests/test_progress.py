"""One bar for many nodes: what is left, and how long it takes."""

from __future__ import annotations

import pytest

from safetydpo_kedro import progress
from safetydpo_kedro.progress import Matrix, matrix_of, start, stop

TASKS = {"a/images": "drawing", "b/images": "drawing", "a/judged": "judging", "b/judged": "judging"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def matrix(clock):
    matrix = Matrix(TASKS)
    yield matrix
    matrix.close()


def test_tasks_that_have_not_begun_are_as_large_as_the_largest(matrix):
    assert matrix.left() == {"drawing": 0, "judging": 0} and matrix.seconds_left() is None
    matrix.begin("a/images", 100, done=40)
    assert matrix.left() == {"drawing": 160, "judging": 200}
    matrix.begin("b/images", 0, done=0)  # a variant that is left out
    assert matrix.left() == {"drawing": 60, "judging": 200}


def test_time_left_knows_that_judging_is_faster_than_drawing(matrix, clock):
    matrix.begin("a/images", 10, done=0)
    clock[0] = 20
    matrix.advance("a/images", 10, seconds=20)
    assert matrix.seconds_left() == pytest.approx(30 * 2)  # all that is known is two a piece
    matrix.begin("a/judged", 10, done=0)
    clock[0] = 21
    matrix.advance("a/judged", 10, seconds=1)
    assert matrix.left() == {"drawing": 10, "judging": 10}
    assert matrix.seconds_left() == pytest.approx(10 * 2 + 10 * 0.1)


def test_tasks_that_run_at_once_take_less_time(matrix, clock):
    for task in ("a/images", "b/images"):
        matrix.begin(task, 10, done=0)
    clock[0] = 10
    for task in ("a/images", "b/images"):
        matrix.advance(task, 5, seconds=10)
    assert matrix.seconds_left() == pytest.approx((10 * 2 + 20 * 2) / 2)


def test_only_tasks_of_a_started_matrix_report_to_it(matrix):
    assert matrix_of("a/images") is None
    start(matrix)
    assert matrix_of("a/images") is matrix and matrix_of("latent_cache") is None
    stop(matrix)
    stop(matrix)
    assert matrix_of("a/images") is None


def test_other_processes_leave_the_bar_alone(matrix, monkeypatch):
    start(matrix)
    try:
        monkeypatch.setattr(progress.os, "getpid", lambda: -1)
        assert matrix_of("a/images") is None
    finally:
        stop(matrix)
