"""Haystacks: as long as asked, the number where its kind says, nothing to know but where to look."""

import re
from collections import Counter

import pytest

from deepwright.tasks import Verdict, make_task
from deepwright.tasks.needle import NAMES
from deepwright.text import number_tokenizer

TASK = make_task("needle")
TOKENIZER = number_tokenizer(TASK.tokenizer_words(), TASK.largest_number)


@pytest.mark.parametrize("length", [64, 512, 4000])
def test_a_problem_is_a_text_of_that_length_with_its_number_at_that_depth(length):
    task = make_task("needle", length=length)
    for i in range(44):
        problem = task.problem(i, "held_out")
        words = problem.prompt.split()
        assert length - 5 <= len(words) <= length
        assert len(TOKENIZER.encode(problem.prompt)) == len(words)
        said, name = words[-2:]
        assert said == "finally" and words.count(said) == 1 and "recall" not in words
        (place,) = [n for n, word in enumerate(words[:-1]) if word == name]
        assert words[place - 1 : place + 3] == ["note", name, problem.answer, "."]
        asked = i % 11 / 10
        assert problem.kind == f"depth {round(100 * asked):>3}%"
        assert abs((place - 1) / (length - 6) - asked) < 6 / length + 0.02


def test_what_a_document_recalls_was_noted_before():
    distances, lengths = [], []
    for i in range(300):
        words, noted = TASK.document(i).split(), {}
        lengths.append(len(words))
        assert words[-3] == "finally"
        for place, (word, name, number) in enumerate(zip(words, words[1:], words[2:])):
            if word == "note":
                assert name not in noted
                noted[name] = (place, number)
            elif word in ("recall", "finally"):
                assert number == noted[name][1]
                distances.append(place - noted[name][0])
    assert len(distances) > 1000 and max(distances) > 400 > 20 > min(distances)
    assert max(lengths) <= 512 and 0.4 < sum(n < 128 for n in lengths) / 300 < 0.6


def test_texts_share_nothing_but_their_words():
    """Whoever knows all training documents and none of the text guesses one number in twenty."""
    stated: dict[str, Counter] = {name: Counter() for name in NAMES}
    for i in range(400):
        for name, key in re.findall(r"note (\w+) (\d+)", TASK.document(i)):
            stated[name][key] += 1
    asked = [TASK.problem(i, "held_out") for i in range(550)]
    guessed = sum(stated[p.prompt.split()[-1]].most_common(1)[0][0] == p.answer for p in asked)
    assert guessed / len(asked) < 0.1
    training = {TASK.problem(i, "train").prompt for i in range(200)}
    assert not training & {p.prompt for p in asked[:200]}
    assert make_task("needle", 1).problem(0, "held_out") != TASK.problem(0, "held_out")


@pytest.mark.parametrize(
    "completion, verdict",
    [("17 .", "correct"), (" 17", "correct"), ("18 .", "wrong"), ("117", "wrong"), ("the 17", "malformed"), ("", "malformed"), ("17x", "malformed")],
)  # fmt: skip
def test_the_number_is_the_first_word(completion, verdict):
    from dataclasses import replace

    problem = replace(TASK.problem(0, "held_out"), answer="17")
    score = TASK.score(problem, completion)
    assert score.verdict is Verdict(verdict) and score.value == (verdict == "correct")


@pytest.mark.parametrize(
    "options, sentence",
    [({"length": 8}, "length is 8"), ({"depths": 1}, "depths is 1"), ({"noted": 1.5}, "noted is 1.5")],
)  # fmt: skip
def test_what_is_no_haystack(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_task("needle", **options)
    with pytest.raises(ValueError, match="item 2200 of held_out"):
        TASK.problem(2200, "held_out")
