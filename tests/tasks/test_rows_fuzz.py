"""Damaged row files of every layout: problems, rows left out and counted, or one sentence; never
anything else, and never slowly."""

import time
import warnings

import pytest

from deepwright.tasks import make_task
from deepwright.tasks.layouts import BENCHMARKS
from tests.tasks.published_rows import ROWS
from tests.tasks.row_mutations import damaged_file

pytestmark = pytest.mark.usefixtures("anywhere")
LONGEST = 800  # characters of a sentence
SECONDS = 5.0  # of the processor, for four rows of up to a megabyte


def outcome(path, name, capsys=None) -> str:
    """What happens to a file: "problems", or "refused"; AssertionError where it is neither."""
    start = time.process_time()
    task = make_task(f"{name}:{path}", held_out_of=1, unconfined=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            problems = [task.problem(i, "held_out") for i in range(task.size("held_out"))]
        except (ValueError, OSError) as error:
            assert 0 < len(str(error)) < LONGEST and "\n" not in str(error), str(error)
            return "refused"
        finally:
            assert time.process_time() - start < SECONDS
    assert all(len(str(one.message)) < LONGEST for one in told)
    for problem in problems:
        assert problem.prompt.strip() and ("tests" in problem.columns or problem.answer.strip())
        assert problem.messages[-1]["role"] == "user"
        assert all(isinstance(turn["content"], str) for turn in problem.messages)
    return "problems"


def seeds(layout: str, count: int) -> range:
    first = 10_000 * list(ROWS).index(layout)
    return range(first, first + count)


@pytest.mark.parametrize("layout", ROWS)
def test_damaged_rows(layout, tmp_path):
    found = []
    for seed in seeds(layout, 12):
        name = "file" if seed % 4 else sorted(BENCHMARKS)[seed // 4 % len(BENCHMARKS)]
        found.append(outcome(damaged_file(ROWS[layout][0], tmp_path, seed), name))
    assert "problems" in found  # a check that refuses everything would pass as well


@pytest.mark.slow
@pytest.mark.parametrize("layout", ROWS)
def test_damaged_rows_by_the_thousand(layout, tmp_path):
    for seed in seeds(layout, 200):
        outcome(damaged_file(ROWS[layout][0], tmp_path, seed), "file")
