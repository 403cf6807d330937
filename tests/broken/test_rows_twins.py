"""Wrong twins of how other people's rows are read, asked and counted: each makes one mistake that
was made here or elsewhere, and a named check must reject it."""

import base64
import dataclasses
import pickle
import zlib

import pytest

from deepwright.evaluate import estimators
from deepwright.recipe import use
from deepwright.rl import grpo
from deepwright.tasks import files, layouts, references, row_files
from deepwright.tasks.layouts import read_row
from tests.broken.patched import must_reject
from tests.evaluate.test_estimators import intervals_hold
from tests.recipe.test_use import what_was_trained_on_is_not_asked
from tests.rl import test_grpo
from tests.tasks.published_rows import ROWS
from tests.tasks.test_layouts import nothing_is_unpickled, verdicts_hold
from tests.tasks.test_references import references_hold
from tests.tasks.test_row_files import every_row_is_asked, refusal, write

MATHS = tuple(name for name, (_, _, right, _) in ROWS.items() if "```" not in right)


def maths_verdicts_hold(folder):
    verdicts_hold(folder, MATHS)


def columns_have_no_case(folder):
    assert refusal("aime", write(folder / "own.jsonl", [ROWS["aime in capitals"][0]])) == ""


def benchmarks_are_told_apart(folder):
    for name, other in (
        ("gsm8k", "math"),
        ("aime", "gsm8k"),
        ("math500", "gsm8k"),
        ("dapo", "aime"),
    ):
        assert "is not" in refusal(name, write(folder / "other.jsonl", [ROWS[other][0]])), name


def questions_are_whole():
    assert "2 boxes" in read_row(ROWS["a story in front"][0]).prompt
    assert "B. 6" in read_row(ROWS["choices"][0]).messages[-1]["content"]
    assert "assert add" in read_row(ROWS["mbpp"][0]).messages[-1]["content"]


def the_text_itself(original):
    return lambda text: text.strip()


def the_last_word(original):
    return lambda text: text.split()[-1]


def blanks_stay(original):
    return lambda answer: answer


def columns_by_their_case(original):
    return dict


def the_plainest_layout_first(original):
    return original[::-1]


def without_what_stands_before(original):
    return ()


def without_what_a_layout_shows(original):
    return tuple(dataclasses.replace(one, asked=lambda row, question: question) for one in original)


def with_the_private_tests(original):
    def read(row):
        text = base64.b64decode(row["private_test_cases"], validate=False)
        tests = pickle.loads(zlib.decompress(text))  # noqa: S301  the mistake that this twin makes
        return original[0].tests(row | {"private_test_cases": tests})

    def carelessly(row):
        try:
            return read(row)
        except Exception:
            return original[0].tests(row)

    return (dataclasses.replace(original[0], tests=carelessly), *original[1:])


def any_name_will_do(original):
    return lambda row, problem, name: ""


def split_all_the_same(original):
    """A remainder that is never 0: what a side to train on is kept by."""
    return lambda text: original(text) % 10 / 10 + 0.01


def files_by_their_names(original):
    return lambda name, split: {name} if name.partition(":")[2] else set()


def normal(original):
    """The interval of textbooks, of no width where nothing is right."""

    def interval(share, trials):
        half = 1.96 * (share * (1 - share) / trials) ** 0.5
        return share - half, share + half

    return interval


def samples_as_problems(original):
    return property(lambda self: estimators.wilson(self.value, self.problems * self.trials))


def problems_alone(original):
    return property(lambda self: estimators.wilson(self.value, self.problems))


def as_it_came(_):
    return lambda task: task


TWINS = [
    (test_grpo.test_training_reads_strictly_unless_it_is_told_otherwise, grpo, "paid", as_it_came),
    (references_hold, references, "_in_text", the_text_itself),
    (references_hold, references, "_in_text", the_last_word),
    (references_hold, references, "_joined", blanks_stay),
    (columns_have_no_case, layouts, "lowered", columns_by_their_case),
    (maths_verdicts_hold, layouts, "LAYOUTS", the_plainest_layout_first),
    (questions_are_whole, layouts, "BEFORE", without_what_stands_before),
    (questions_are_whole, layouts, "LAYOUTS", without_what_a_layout_shows),
    (nothing_is_unpickled, layouts, "LAYOUTS", with_the_private_tests),
    (benchmarks_are_told_apart, row_files, "_misfit", any_name_will_do),
    (every_row_is_asked, files, "digest", split_all_the_same),
    (what_was_trained_on_is_not_asked, use, "files_in", files_by_their_names),
    (intervals_hold, estimators, "wilson", normal),
    (intervals_hold, estimators.Estimate, "interval", samples_as_problems),
    (intervals_hold, estimators.Estimate, "interval", problems_alone),
]


@pytest.mark.parametrize(
    "check, owner, name, wrong", TWINS, ids=[twin[3].__name__ for twin in TWINS]
)
def test_the_check_rejects_the_twin_and_passes_without_it(check, owner, name, wrong, tmp_path):
    must_reject(check, owner, name, wrong, tmp_path)
