"""Stage `align`: reinforcement learning for all scenarios (R1 section 2.3.4). Reasoning is rewarded by rules as before, general answers by two
reward models: a helpful one, trained on preference pairs and shown the summary alone, and a safe one, trained on labels and shown everything.

Which of two answers is preferred is said by the rules of tasks/requests.py, which also say afterwards which one wins: before and after. The pairs are answers
of the policy itself, as R1's are a model's; invented authors fill up where it hardly differs, and write what is labelled as safe or not.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepwright.evaluate import Evaluation
from deepwright.evaluate.estimators import over_problems
from deepwright.evaluate.scoring import completion_text, prompt_ids
from deepwright.files import write_records
from deepwright.model import Transformer
from deepwright.recipe.harvest import UNREADABLE, read_samples, readable
from deepwright.recipe.stage import Recipe
from deepwright.recipe.times import EVALUATION, REWARD_MODELS
from deepwright.recipe.watching import watched
from deepwright.refusals import expect
from deepwright.rl.reward_model import Labelled, Pair, RewardModel, train_reward_model
from deepwright.sampler import Sampler, Sampling
from deepwright.seeds import shuffled, stream
from deepwright.tasks import Problem, Sampled, Score, Split, Task, Verdict, score_all
from deepwright.tasks.requests import OUTSIDE, Requests, preference, safe
from deepwright.text import Tokenizer
from deepwright.text.thoughts import ANSWER, END_THINK

STAGE, HELPFUL, SAFE = "align", "helpful", "safe"
PAIRS = "pairs.jsonl"  # in the folder of the helpful model
HELD_OUT_PAIRS, HELD_OUT_SAMPLES, COMPARED_SAMPLES = 200, 8, 48
_PAIRS = 55  # purpose of a random stream
_UNREADABLE = Score(0.0, Verdict.MALFORMED, UNREADABLE)
Preferred = tuple[Problem, str, str]  # a request, the better completion, the worse one


@dataclass(frozen=True)
class ModelReward:
    """Requests paid by the reward models; the rules' verdict is kept beside it, to be watched and not to be learned from."""

    task: Requests
    helpful: RewardModel
    safe: RewardModel
    tokenizer: Tokenizer

    def score_many(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score]:
        """format + sigmoid(helpful) + sigmoid(safe) in the layout, 0 outside and where a token stands for no word."""
        scores = [
            self.task.score(problem, completion)
            for problem, completion in zip(problems, completions, strict=True)
        ]
        scores = [
            score if readable(self.tokenizer, text) else _UNREADABLE
            for score, text in zip(scores, completions, strict=True)
        ]
        paid = [
            place for place, score in enumerate(scores) if score.verdict is not Verdict.MALFORMED
        ]
        said = [(problems[place], completions[place]) for place in paid]
        values = zip(
            self._of(self.helpful, [(p, summary(c)) for p, c in said]),
            self._of(self.safe, said),
            strict=True,
        )
        for place, (helpful, harmless) in zip(paid, values, strict=True):
            parts = {
                "accuracy": 0.0,
                "format": self.task.format_reward,
                HELPFUL: helpful,
                SAFE: harmless,
            }
            scores[place] = replace(scores[place], value=sum(parts.values()), parts=parts)
        return scores

    def _of(self, model: RewardModel, said: Sequence[tuple[Problem, str]]) -> list[float]:
        rows = [
            self.tokenizer.encode_prompt(problem.prompt) + self.tokenizer.encode(text)
            for problem, text in said
        ]
        return model.scores(rows).sigmoid().tolist() if rows else []


@dataclass(frozen=True)
class Scenarios:
    """Problems of several tasks in turn: item i is item i // n of task i % n, scored by that task."""

    tasks: tuple[Task | ModelReward, ...]
    asked: tuple[Task, ...]  # where their problems come from

    name = "scenarios"

    def size(self, split: Split) -> int:
        return len(self.asked) * max(task.size(split) for task in self.asked)

    def problem(self, i: int, split: Split) -> Problem:
        turn, place = i % len(self.asked), i // len(self.asked)
        problem = self.asked[turn].problem(place, split)
        return replace(
            problem,
            columns={**problem.columns, "turn": turn},
            kind=f"{self.asked[turn].name}: {problem.kind}",
        )

    def score_many(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score]:
        return self.score_sampled(problems, completions, None)

    def score_sampled(
        self, problems: Sequence[Problem], completions: Sequence[str], sampled: Sampled | None
    ) -> list[Score]:
        found: dict[int, Score] = {}
        for turn, task in enumerate(self.tasks):
            places = [
                place for place, problem in enumerate(problems) if problem.columns["turn"] == turn
            ]
            asked, said = [problems[p] for p in places], [completions[p] for p in places]
            scores = score_all(task, asked, said, sampled and sampled.of(places))
            found |= zip(places, scores, strict=True)
        return [found[place] for place in range(len(problems))]


def run(recipe: Recipe) -> None:
    """Trains the two reward models from the fine-tuned policy, then the policy by both kinds of rewards. A run without requests stays at reasoning."""
    settings, model = recipe.settings.align, recipe.model_of("finetune", STAGE)
    task = recipe.task_paying(settings.language_reward)
    if recipe.requests is None:
        recipe.reinforce(STAGE, model, task, settings.rl)
        return
    with recipe.journal.times.of(STAGE, REWARD_MODELS):
        models = {
            name: _reward_model(recipe, model, name, recipe.requests) for name in (HELPFUL, SAFE)
        }
    requests, judge = recipe.requests, recipe.judge(model, task=recipe.requests)

    def answers() -> Evaluation:
        with recipe.journal.times.of(STAGE, EVALUATION):
            return judge.measure(
                requests.size("held_out"), HELD_OUT_SAMPLES, 1.0, label="align win rate"
            )

    before = answers()
    paid = ModelReward(recipe.requests, models[HELPFUL], models[SAFE], recipe.tokenizer)
    recipe.reinforce(STAGE, model, Scenarios((task, paid), (task, recipe.requests)), settings.rl,
                     lambda: {"win_rate": win_rate(requests, before, answers())["after"]})  # fmt: skip
    recipe.journal.facts(win_rate=win_rate(requests, before, answers()))


def _reward_model(
    recipe: Recipe, policy: Transformer, name: str, requests: Requests
) -> RewardModel:
    model, settings = RewardModel(policy), recipe.settings.align
    examples, counts = [], {"train": settings.pairs, "held_out": HELD_OUT_PAIRS}
    own = _drawn_pairs(recipe, policy, requests, counts) if name == HELPFUL else []
    for split, count in counts.items():
        said = [pair for of, *pair in own if of == split]
        said += [requests.pair(i, split) for i in range(count - len(said))]
        examples.append(_examples(recipe.tokenizer, said, name))
    accuracy = train_reward_model(
        settings.reward_model,
        model,
        *examples,
        recipe.folder / STAGE / name,
        recipe.journal.tracker,
        recipe.tokenizer,
        recipe.seed,
        stage=f"reward_{name}",
    )
    recipe.journal.facts(**{f"reward_{name}_accuracy": accuracy})
    return model.eval().requires_grad_(False)


def _drawn_pairs(
    recipe: Recipe, policy: Transformer, requests: Requests, counts: Mapping[Split, int]
) -> list[tuple[Split, Problem, str, str]]:
    """Pairs of the policy's own answers with their split, drawn once in a run: a reward model goes on only with what it began with."""
    place = recipe.place(STAGE) / HELPFUL / PAIRS
    if not place.exists():
        sampler, rows = recipe.sampler(policy), []
        for split, count in counts.items():
            said = own_pairs(
                sampler, recipe.tokenizer, requests, split, count, recipe.max_tokens, recipe.seed
            )
            rows += [
                {"split": split, "request": problem.index, "better": a, "worse": b}
                for problem, a, b in said
            ]
        place.parent.mkdir(exist_ok=True)
        write_records(place, rows, plain=False)
    return _read_pairs(place, recipe.tokenizer, requests)


def _read_pairs(
    place: Path, tokenizer: Tokenizer, requests: Requests
) -> list[tuple[Split, Problem, str, str]]:
    found = []
    kinds = {"split": Split, "request": int, "better": str, "worse": str}
    for number, row in enumerate(read_samples(place, kinds), 1):
        split, texts, where = row["split"], (row["better"], row["worse"]), f"{place}, pair {number}"
        size = requests.size(split)
        expected = f"one of the {size} requests"
        expect(0 <= row["request"] < size, f"{where}: request", row["request"], expected)
        for text in texts:
            expect(readable(tokenizer, text), f"{where}: a text", text, "words of the vocabulary")
        found.append((split, requests.problem(row["request"], split), *texts))
    return found


def own_pairs(
    sampler: Sampler,
    tokenizer: Tokenizer,
    requests: Requests,
    split: Split,
    count: int,
    max_tokens: int,
    seed: int,
) -> list[Preferred]:
    """At most `count` pairs of what the policy answers to the same request, better by the rules and worse, about as many of each request.

    A reward model that saw only what invented authors write ranks them worse, and is gamed (79 against 92% of held-out pairs on the laptop)."""
    problems = [requests.problem(i, split) for i in range(requests.size(split))]
    asked = Sampling(max_tokens, stop_ids=tokenizer.stop_ids, n=COMPARED_SAMPLES, seed=seed)
    found: list[Preferred] = []
    prompts = [prompt_ids(tokenizer, problem) for problem in problems]
    with watched(sampler, len(prompts) * asked.n, f"sampling pairs, {split.replace('_', ' ')}"):
        sampled = sampler.sample(prompts, asked)
    for i, group in enumerate(sampled):
        texts = dict.fromkeys(completion_text(tokenizer, one) for one in group)
        worth = {
            text: preference(problems[i].columns["request"], text)
            for text in texts
            if readable(tokenizer, text)
        }
        pairs = [
            (problems[i], a, b)
            for a in worth
            for b in worth
            if worth[a] > worth[b] > OUTSIDE and summary(a) != summary(b)
        ]
        found += shuffled(stream(seed, _PAIRS, i), pairs)[: -(-count // len(problems))]
    return found[:count]


def _examples(
    tokenizer: Tokenizer, pairs: Sequence[Preferred], name: str
) -> list[Pair] | list[Labelled]:
    """Helpful: the summaries of pairs. Safe: their whole completions with a label each."""
    if name == HELPFUL:
        return [Pair(*(tuple(ids) for ids in (tokenizer.encode_prompt(p.prompt), tokenizer.encode(summary(a)), tokenizer.encode(summary(b)))))
                for p, a, b in pairs]  # fmt: skip
    return [
        Labelled((*tokenizer.encode_prompt(p.prompt), *tokenizer.encode(text)), safe(text))
        for p, *both in pairs
        for text in both
    ]


def summary(completion: str) -> str:
    """The answer without the thought: what helpfulness is judged on."""
    return completion.partition(END_THINK)[2].strip() or ANSWER


def win_rate(requests: Requests, before: Evaluation, after: Evaluation) -> Mapping[str, float]:
    """How often the answer after is preferred by the rules to the one before, of the same problem and sample; a tie counts one half. The error takes the
    answers to a request as one cluster."""
    wins: dict[int, list[float]] = {}
    for old, new in zip(before.generations, after.generations, strict=True):
        wins.setdefault(old.problem, []).append(_win(requests, old.problem, old.text, new.text))
    found = over_problems([statistics.fmean(of_one) for of_one in wins.values()])
    return {"after": found.value, "standard_error": found.standard_error}


def _win(requests: Requests, place: int, old: str, new: str) -> float:
    request = requests.problem(place, "held_out").columns["request"]
    change = preference(request, new) - preference(request, old)
    return 0.5 if change == 0 else float(change > 0)
