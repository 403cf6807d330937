"""Haystacks: as long as asked, the key where its kind says, nothing to know but where to look."""

import re
from collections import Counter

import pytest

from deepwright.tasks import Verdict, make_task
from deepwright.tasks.needle import NAMES
from deepwright.text import number_tokenizer

TASK = make_task("needle")
TOKENIZER = number_tokenizer(TASK.tokenizer_words(), TASK.largest_number)


@pytest.mark.parametrize("length", [64, 512, 4000])
def test_a_problem_is_a_text_of_that_length_with_its_key_at_that_depth(length):
    task = make_task("needle", length=length)
    for i in range(44):
        problem = task.problem(i, "held_out")
        words = problem.prompt.split()
        assert length - 6 <= len(words) <= length
        assert len(TOKENIZER.encode(problem.prompt)) == len(words)
        name = words[-2]
        assert words[-4:] == ["key", "of", name, "?"]
        (place,) = [n for n, word in enumerate(words[:-4]) if word == name]
        assert words[place - 2 : place + 4] == ["key", "of", name, "is", problem.answer, "."]
        asked = i % 11 / 10
        assert problem.kind == f"depth {round(100 * asked):>3}%"
        assert abs((place - 2) / (length - 10) - asked) < 12 / length + 0.02


def test_every_question_of_a_document_is_answered_by_what_stands_before_it():
    distances = []
    for i in range(60):
        words, known = TASK.document(i).split(), {}
        assert 500 <= len(words) <= 512
        for place in range(len(words) - 5):
            if words[place : place + 2] == ["key", "of"]:
                name = words[place + 2]
                if words[place + 3] == "is":
                    assert name not in known
                    known[name] = (place, words[place + 4])
                else:
                    assert words[place + 3] == "?" and words[place + 4] == known[name][1]
                    distances.append(place - known[name][0])
    assert len(distances) > 500 and max(distances) > 400 > 20 > min(distances)


def test_texts_share_nothing_but_their_words():
    """Whoever knows all training documents and none of the text guesses one key in a hundred."""
    stated: dict[str, Counter] = {name: Counter() for name in NAMES}
    for i in range(400):
        for name, key in re.findall(r"key of (\w+) is (\d+)", TASK.document(i)):
            stated[name][key] += 1
    asked = [TASK.problem(i, "held_out") for i in range(550)]
    guessed = sum(
        stated[p.prompt.split()[-2]].most_common(1)[0][0] == p.answer for p in asked
    )
    assert guessed / len(asked) < 0.04
    training = {TASK.problem(i, "train").prompt for i in range(200)}
    assert not training & {p.prompt for p in asked[:200]}
    assert make_task("needle", 1).problem(0, "held_out") != TASK.problem(0, "held_out")


@pytest.mark.parametrize(
    "completion, verdict",
    [("17 .", "correct"), (" 17", "correct"), ("18 .", "wrong"), ("117", "wrong"), ("the 17", "malformed"), ("", "malformed"), ("17x", "malformed")],
)  # fmt: skip
def test_the_key_is_the_first_word(completion, verdict):
    from dataclasses import replace

    problem = replace(TASK.problem(0, "held_out"), answer="17")
    score = TASK.score(problem, completion)
    assert score.verdict is Verdict(verdict) and score.value == (verdict == "correct")


@pytest.mark.parametrize(
    "options, sentence",
    [({"length": 8}, "length is 8"), ({"depths": 1}, "depths is 1"), ({"asked": 0.7}, "asked is 0.7")],
)  # fmt: skip
def test_what_is_no_haystack(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_task("needle", **options)
    with pytest.raises(ValueError, match="item 2200 of held_out"):
        TASK.problem(2200, "held_out")
