"""Thoughts closed at a budget: token by token by hand, against the plain sampler, and against a greedy loop over the model; votes by hand."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from deepwright.config import preset
from deepwright.evaluate import Budgeted, evaluate, votes
from deepwright.evaluate.evaluation import Generation
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.tasks import Countdown, Problem
from deepwright.text import Tokenizer, number_tokenizer, train_bpe

TASK = Countdown(held_out=20)
WORDS = number_tokenizer(TASK.tokenizer_words(), TASK.largest_number)
PROMPT = "nums 3 7 1 make 20 :"
GUESS, RIGHT = "3 + 7 + 1", "( 3 * 7 ) - 1"
SEARCH = "<think> 3 + 7 = 10 , 10 + 1 = 11 wait 3 * 7 = 21 , 21 - 1 = 20 yes </think>"  # 26 words; the solution is there after 25


def ids(text: str, tokenizer: Tokenizer = WORDS) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text))


class Author:
    """Writes `thought` and then an answer, the right one if it stands in what it has thought by then. What comes next follows from the text so far."""

    def __init__(self, thought: str = SEARCH, prompt: str = PROMPT) -> None:
        self.thought, self.prompt, self.calls = ids(thought), tuple(WORDS.encode_prompt(prompt)), []

    def sample(self, prompts, sampling):
        self.calls.append(sampling)
        return [
            [self._continue(list(prompt[len(self.prompt) :]), sampling)] * sampling.n
            for prompt in prompts
        ]

    def _continue(self, begun: list[int], sampling: Sampling) -> Completion:
        assert begun[-1:] != [WORDS.eos_id], "a completion that has ended goes on"
        start = len(begun)
        while len(begun) - start < sampling.max_tokens and begun[-1:] != [WORDS.eos_id]:
            begun.append(self._next(begun))
        new = tuple(begun[start:])
        return Completion(
            new,
            (-0.5,) * len(new),
            StopReason.STOP if new[-1] == WORDS.eos_id else StopReason.LENGTH,
        )

    def _next(self, begun: list[int]) -> int:
        (tag,) = ids("</think>")
        if tag not in begun and len(begun) < len(self.thought):
            return self.thought[len(begun)]
        found = ids("20 yes") in itertools.pairwise(begun)
        ending = (*ids(f"<answer> {RIGHT if found else GUESS} </answer>"), WORDS.eos_id)
        return ending[len(begun) - (begun.index(tag) + 1 if tag in begun else len(self.thought))]


def thinking(
    budget: int, author: Author | None = None, answer_tokens: int = 20, n: int = 1
) -> list[Completion]:
    author = author or Author()
    return Budgeted(author, WORDS, budget, answer_tokens).sample(
        [author.prompt], Sampling(99, 0.0, stop_ids=WORDS.stop_ids, n=n)
    )[0]


def test_thought_over_its_budget_is_closed_by_force():
    author = Author()
    (found,) = thinking(5, author)
    assert WORDS.decode(found.token_ids) == f"<think> 3 + 7 = </think> <answer> {GUESS} </answer>"
    assert found.token_ids[-1] == WORDS.eos_id and found.stop is StopReason.STOP
    assert found.log_probs == (-0.5,) * 5 + (0.0,) + (-0.5,) * 8
    assert [(call.max_tokens, call.n) for call in author.calls] == [(5, 1), (20, 1)]


def test_thought_closed_in_time_goes_on_as_it_is():
    (found,) = thinking(28)  # the tag is token 26, <answer> token 27
    assert (
        WORDS.decode(found.token_ids) == f"{SEARCH} <answer> {RIGHT} </answer>"
        and 0.0 not in found.log_probs
    )


def test_tag_at_the_very_end_of_the_budget_is_not_repeated():
    for budget in (25, 26):
        (found,) = thinking(budget)
        assert WORDS.decode(found.token_ids) == f"{SEARCH} <answer> {RIGHT} </answer>"
        assert found.log_probs.count(0.0) == (budget == 25)


def test_completions_that_stopped_stay_and_need_no_second_call():
    author, plain = Author(), Author()
    assert (
        thinking(99, author, n=3)
        == plain.sample([plain.prompt], Sampling(99, stop_ids=WORDS.stop_ids, n=3))[0]
    )
    assert len(author.calls) == 1


def test_answer_has_its_own_limit():
    (found,) = thinking(5, answer_tokens=3)
    assert (
        WORDS.decode(found.token_ids) == "<think> 3 + 7 = </think> <answer> 3 +"
        and found.stop is StopReason.LENGTH
    )


def test_greedy_and_closed_in_time_equals_the_plain_sampler():
    (plain,) = Author().sample([Author().prompt], Sampling(99))[0]
    for budget in range(26, 40):
        assert thinking(budget) == [plain]


def test_prompt_that_opened_the_thought():
    """The completion writes no opening tag, or repeats it: both are thought."""
    for thought in ("3 + 7 = 10 yes </think>", "<think> 3 + 7 = 10 yes </think>"):
        (found,) = thinking(3, Author(thought, f"{PROMPT} <think>"))
        begun = " ".join(thought.split()[:3])
        assert WORDS.decode(found.token_ids) == f"{begun} </think> <answer> {GUESS} </answer>"


def test_completion_that_never_opens_a_thought_has_none_to_close():
    (found,) = thinking(4, Author("3 + 7 = 10 yes"))
    assert (
        WORDS.decode(found.token_ids) == f"3 + 7 = 10 yes <answer> {GUESS} </answer>"
        and 0.0 not in found.log_probs
    )
    (found,) = thinking(4, Author("3 + <think> 7 = 10 yes"))  # a tag within content is text
    assert 0.0 not in found.log_probs


class Script:
    """First call: `begun`, cut at the limit. Second call: the end token."""

    def __init__(self, tokenizer: Tokenizer, *begun: int) -> None:
        self.tokenizer, self.begun = tokenizer, begun

    def sample(self, prompts, sampling):
        cut = Completion(self.begun, (-1.0,) * len(self.begun), StopReason.LENGTH)
        end = Completion((self.tokenizer.eos_id,), (-1.0,), StopReason.STOP)
        return [[cut if sampling.max_tokens == len(self.begun) else end] for _ in prompts]


def text_of(tokenizer: Tokenizer, *begun: int) -> str:
    sampling = Sampling(999, stop_ids=tokenizer.stop_ids)
    found = Budgeted(Script(tokenizer, *begun), tokenizer, len(begun), 999).sample(
        [tokenizer.encode_prompt("x")], sampling
    )
    return tokenizer.decode(found[0][0].token_ids)


def test_tag_of_several_tokens():
    # 256 bytes, special tokens, no merges: one token for each character of a tag
    bytewise = train_bpe(["aa"], 263)
    assert len(ids("</think>", bytewise)) == 8
    for begun, wanted in (
        ("<think>so", "<think>so</think>"),
        ("<think>so</thi", "<think>so</think>"),  # what is missing of a tag that has begun
        ("<think>so</", "<think>so</think>"),
        ("<think>so</think>", "<think>so</think>"),
        ("<think>so</thi<", "<think>so</thi</think>"),
        ("<thi", "<thi</think>"),  # not yet a thought, but nothing else either
        (" \n", " \n</think>"),
        ("so<think>", "so<think>"),
    ):
        assert text_of(bytewise, *ids(begun, bytewise)) == wanted


def test_tag_whose_last_token_holds_more_is_seen():
    merging = train_bpe(["so</think>\n\n"] * 9, 400)
    begun = ids("<think>so</think>\n\n", merging)
    assert any(merging.decode([token]).startswith(">\n") for token in begun)
    assert text_of(merging, *begun) == "<think>so</think>\n\n"


class Dice:
    """Every token is drawn from the stream (seed, prompt, sample) at its place in the completion, whatever the prompt says."""

    def sample(self, prompts, sampling):
        return [
            [self._roll(p, j, sampling) for j in range(sampling.n)] for p in range(len(prompts))
        ]

    def _roll(self, p: int, j: int, sampling: Sampling) -> Completion:
        rng = random.Random(f"{sampling.seed} {p} {j}")
        return Completion(
            tuple(rng.choices(ids("3 7 + - wait"), k=sampling.max_tokens)),
            (-1.6,) * sampling.max_tokens,
            StopReason.LENGTH,
        )


def test_answers_have_streams_of_their_own():
    """No two samples share one, and none is that of a thought: streams count positions from the start of each call."""
    opened = WORDS.encode_prompt(f"{PROMPT} <think>")
    sampled = Budgeted(Dice(), WORDS, 30, 30).sample([opened, opened], Sampling(60, n=4, seed=3))
    parts = [
        part
        for of_prompt in sampled
        for one in of_prompt
        for part in (one.token_ids[:30], one.token_ids[31:])
    ]
    assert len(parts) == 16 == len(set(parts))
    other = Budgeted(Dice(), WORDS, 30, 30).sample([opened], Sampling(60, n=4, seed=4))[0]
    assert not {one.token_ids[31:] for one in other} & set(parts)


@pytest.fixture(scope="module")
def model():
    config = dataclasses.replace(
        preset("laptop"),
        vocab_size=WORDS.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_nextn_predict_layers=0,
    )
    return Transformer(config, torch.Generator().manual_seed(0)).eval()


def greedy(model: Transformer, begun: list[int], tokens: int) -> tuple[int, ...]:
    """The likeliest token, again and again, each time from the whole text."""
    begun = list(begun)
    for _ in range(tokens):
        begun.append(
            int((model.hidden(torch.tensor([begun]))[0, -1] @ model.head_weight.T).argmax())
        )
        if begun[-1] in WORDS.stop_ids:
            break
    return tuple(begun)


@torch.inference_mode()
def test_engine_under_a_budget_equals_a_greedy_loop_over_the_model(model):
    prompts = [WORDS.encode_prompt(f"{text} <think>") for text in (PROMPT, "nums 4 9 5 make 11 :")]
    sampling = Sampling(1, 0.0, stop_ids=WORDS.stop_ids)
    sampled = Budgeted(Engine(model, WORDS), WORDS, 6, 9).sample(prompts, sampling)
    for prompt, (found,) in zip(prompts, sampled, strict=True):
        thought = greedy(model, prompt, 6)
        assert len(thought) == len(prompt) + 6
        assert (*prompt, *found.token_ids) == greedy(model, [*thought, *ids("</think>")], 9)


def test_engine_without_a_thought_equals_the_plain_engine(model):
    prompts = [WORDS.encode_prompt(PROMPT), WORDS.encode_prompt("nums 4 9 5 make 11 :")]
    sampling = Sampling(24, 0.0, stop_ids=WORDS.stop_ids, n=2)
    plain = Engine(model, WORDS).sample(prompts, sampling)
    limited = Budgeted(Engine(model, WORDS), WORDS, 10, 14).sample(prompts, sampling)
    assert [[one.token_ids for one in n] for n in limited] == [
        [one.token_ids for one in n] for n in plain
    ]


class OneProblem(Countdown):
    def problem(self, i, split):
        return Problem(i, PROMPT, RIGHT, "1 solution")


def test_accuracy_rises_where_the_budget_reaches_the_solution():
    asked = {"problems": 2, "samples": 2, "max_tokens": 50, "ks": [2]}
    for budget, right in ((1, 0.0), (8, 0.0), (24, 0.0), (25, 1.0), (26, 1.0), (50, 1.0)):
        found = evaluate(
            Budgeted(Author(), WORDS, budget, 20), WORDS, OneProblem(held_out=20), **asked
        )
        assert (
            found.pass_at_1 == right and found.cons_at_k["2"] == right and found.truncated_rate == 0
        )
    # 50: a budget that no completion reaches
    assert found == evaluate(Author(), WORDS, OneProblem(held_out=20), **asked)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((0, 9), "budget is 0, expected at least 1 token"),
        ((9, -2), "answer_tokens is -2, expected at least 1 token"),
    ],
)
def test_limits_below_one_token_are_refused(limits, words):
    with pytest.raises(ValueError, match=words):
        Budgeted(Author(), WORDS, *limits)


def test_vocabulary_without_the_tag_is_refused():
    with pytest.raises(ValueError, match="'</think>' is not in the vocabulary"):
        Budgeted(Author(), number_tokenizer(["make"], 9), 5, 5)
    backend = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "end": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(
        ValueError,
        match="'</think>' is not in the vocabulary, so no thought can be closed by force",
    ):
        Budgeted(Author(), Tokenizer(backend, "", None, "end"), 5, 5)


def generation(problem: int, sample: int, answer: str, verdict: str = "") -> Generation:
    verdict = verdict or ("correct" if answer == "20" else "wrong")
    return Generation(problem, sample, "", "", "", verdict, 0.0, "", True, False, 9, answer or None)


def crowd(*answers_Pn: str, failed: int = -1) -> list[Generation]:
    """One problem for each text of answers; "-" abstains; every answer to problem `failed` broke the verifier."""
    given = [
        (p, j, word) for p, text in enumerate(answers_Pn) for j, word in enumerate(text.split())
    ]
    return [
        generation(p, j, word.strip("-"), "failed" if p == failed else "") for p, j, word in given
    ]


def test_votes_by_hand():
    found = votes(crowd("20 7 20 7", "20 7 7 -", "20 20 20 20", "20 20 20 20", failed=3))
    # problem 0: 1/2, then ties of two 1/2 twice, then a tie of four; problem 1: 1/4, then a tie and a lone 7, then 7 wins; problem 2: always 1
    values = {1: (1 / 2, 1 / 4, 1), 2: (1 / 2, 1 / 4, 1), 4: (1 / 2, 0, 1)}
    assert found.keys() == values.keys()
    for k, per_problem in values.items():
        mean = sum(per_problem) / 3
        spread = (sum((value - mean) ** 2 for value in per_problem) / 2 / 3) ** 0.5
        assert found[k].value == pytest.approx(mean) and found[k].standard_error == pytest.approx(
            spread
        )


def test_votes_are_counted_as_far_as_there_are_samples():
    answers = crowd("20 20 20 20 20 20", "7 7 7 7 7")
    assert list(votes(answers)) == [1, 2, 4] and list(votes(answers, [3, 5])) == [3, 5]
    with pytest.raises(ValueError, match="cons@8 was asked for but a problem has 5 samples"):
        votes(answers, [1, 8])
    with pytest.raises(ValueError, match="a problem has 0 samples"):
        votes([])
