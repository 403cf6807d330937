"""R1's stages after R1-Zero, on tiny models whose samples an oracle writes: what each stage reads, writes, refuses, and that a stop changes nothing."""

import contextlib
import json
import os
import shutil
import signal
from random import Random

import pytest

from deepwright import weights
from deepwright.cli import main
from deepwright.files import read_records
from deepwright.recipe import align, cold_start, distill, finetune, judge, reasoning_rl, rejection
from deepwright.recipe.align import win_rate
from deepwright.recipe.harvest import HarvestSettings, harvest, why_not
from deepwright.recipe.journal import Journal
from deepwright.recipe.resolve import split_words
from deepwright.recipe.session import model_folder
from deepwright.recipe.settings import resolve_for
from deepwright.recipe.stage import Recipe
from deepwright.rl.types import Rollout
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.seeds import stream
from deepwright.tasks import Problem, Verdict
from deepwright.tasks.countdown import Countdown, read_prompt
from deepwright.tasks.expression import written
from deepwright.tasks.requests import STYLES, Requests, completed
from deepwright.tasks.requests import written as asked_as
from deepwright.text import Tokenizer, number_tokenizer
from deepwright.text.languages import LANGUAGES, language_of
from deepwright.text.tokenizer import UNKNOWN
from tests.recipe.test_r1 import TINY

TASK = Countdown(languages=("en", "zh"), count=2, held_out=50)
LINE = [
    *TINY, "--distill.pretrain.length", "48", "--distill.pretrain.schedule.total-tokens", "2000", "--distill.pretrain.schedule.batch-rows", "8",
    "--distill.pretrain.schedule.warmup-steps", "2",
    *(word for name in ("reasoning-rl.rl", "align.rl", "distill.rl")
      for word in f"--{name}.steps 2 --{name}.prompts 4 --{name}.samples 3 --{name}.max-tokens 24 --{name}.checkpoint-every 1".split()),
    "--cold-start.harvest.problems", "40", "--rejection.reasoning.problems", "40", "--align.pairs", "400", "--cold-start.sft.epochs", "1",
    "--finetune.epochs", "1", "--distill.sft.epochs", "1", "--align.reward-model.batch", "16", "--align.reward-model.learning-rate", "0.02",
]  # fmt: skip


class Oracle:
    """Samples what an author would write: right or wrong, in one language or two, again and again, or never ending."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.requests = {
            asked_as(r): r for members in Requests().requests.values() for r in members
        }
        self.right = {
            (p.numbers, p.target): p.right[0] for split in TASK.puzzles.values() for p in split
        }

    def sample(self, prompts, sampling: Sampling):
        return [
            [
                self._one(prompt, stream(sampling.seed, 200, 1000 * p + j), sampling)
                for j in range(sampling.n)
            ]
            for p, prompt in enumerate(prompts)
        ]

    def _one(self, prompt, rng: Random, sampling: Sampling) -> Completion:
        text, opened, _ = self.tokenizer.decode(prompt).partition(" <think>")
        said = (
            completed(rng, self.requests[text], rng.choice(STYLES))
            if text in self.requests
            else self._solved(text, rng)
        )
        ids = [
            *self.tokenizer.encode(said.partition("</think>")[2] if opened else said),
            self.tokenizer.eos_id,
        ]
        cut = len(ids) > sampling.max_tokens
        ids = ids[: sampling.max_tokens]
        return Completion(
            tuple(ids), (-1.0,) * len(ids), StopReason.LENGTH if cut else StopReason.STOP
        )

    def _solved(self, prompt: str, rng: Random) -> str:
        numbers, target = read_prompt(prompt)
        known = self.right.get((tuple(sorted(numbers)), target))
        if known is None:  # three numbers: what nothing is trained on
            return f"<think> </think> <answer> {numbers[0]} </answer>"
        (equation,), expression = written(known, 0)
        own, other = (
            LANGUAGES[name]
            for name in sorted(LANGUAGES, key=lambda name: name != language_of(prompt))
        )
        thought = f"{equation} {own.yes}"
        style = rng.random()
        thought = (
            f"{equation} {other.wait} {thought}"
            if style < 0.2
            else " ".join([f"{equation} {own.wait}"] * 3)
            if style < 0.3
            else thought
        )
        return f"<think> {thought} </think> <answer> {expression if style < 0.8 else numbers[0]} </answer>"


@pytest.fixture(scope="module")
def oracle():
    made = lambda choice, folder, model, tokenizer: Oracle(tokenizer)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "sampler_of", made)
        patch.setattr("deepwright.recipe.stage.sampler_of", made)
        patch.setattr("deepwright.recipe.zero.sampler_of", made)
        yield


def outcome(folder):
    """What must not depend on stops: the table, what was kept, the weights."""
    table = [
        {k: v for k, v in e.items() if k != "time"}
        for e in read_records(folder / "evaluations.jsonl")
    ]
    kept = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("kept.jsonl")}
    last = {
        path.parent.parent.parent.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("step-*/model.safetensors"))
    }
    return sorted(table, key=lambda e: e["label"] + str(e["step"])), kept, last


@pytest.fixture(scope="module")
def done(oracle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["r1", "--run", str(folder), *LINE]) == 0
    return folder


def test_every_stage_runs_is_judged_and_leaves_a_folder(done, capsys):
    labels = {e["label"] for e in read_records(done / "evaluations.jsonl")}
    stages = (
        "base",
        "zero",
        "cold_start",
        "reasoning_rl",
        "without_language_reward",
        "finetune",
        "align",
        "student",
        "distill",
        "student_by_rl",
    )
    assert {
        *stages,
        *(f"{stage}{more}" for stage in stages for more in (" requests", " on count=3")),
    } <= labels
    assert {label for label in labels if " budget=" in label} == {
        f"align budget={b}" for b in (8, 16, 32)
    }
    facts = json.loads((done / "run.json").read_text())
    assert 0 <= facts["win_rate"]["after"] <= 1 and facts["reward_helpful_accuracy"] > 0.5
    rows = read_records(done / "cold_start" / "kept.jsonl")
    dropped = json.loads((done / "cold_start" / "dropped.json").read_text())
    assert (
        dropped["kept"] == len(rows) > 0
        and {"wrong", "mixes languages"} <= dropped.keys()
        and sum(dropped.values()) == 40 * 8
    )
    assert all(
        TASK.score(Problem(0, row["prompt"], "", ""), row["completion"]).value == 1.1
        for row in rows
    )
    for stage in ("cold_start", "reasoning_rl", "finetune", "align", "distill"):
        assert main(["generate", str(done / stage), "nums 3 7 make 10 :", "--max-tokens", "2"]) == 0
    metrics = read_records(done / "metrics.jsonl")
    assert any(m["stage"] == "reasoning_rl" and m.get("reward_language", 0) > 0 for m in metrics)
    assert not any(m["stage"] == "zero" and m.get("reward_language", 0) > 0 for m in metrics)


@pytest.mark.invariant
def test_a_stop_in_any_stage_ends_in_the_same_table(done, tmp_path, monkeypatch):
    stopped, stages = (
        tmp_path / "stopped",
        ("cold_start", "reasoning_rl", "helpful", "align", "distill"),
    )
    real = os.replace
    for stage in stages:  # a stop as that stage saves its first checkpoint
        seen = []

        def stop(source, target, *, stage=stage, seen=seen, **more):
            real(source, target, **more)
            if f"/{stage}/checkpoints/" in str(target) and not seen:
                seen.append(target)
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(os, "replace", stop)
        with contextlib.suppress(SystemExit):
            main(["r1", "--run", str(stopped), *LINE, "--resume"])
        monkeypatch.setattr(os, "replace", real)
    assert main(["r1", "--run", str(stopped), *LINE, "--resume"]) == 0
    for one, two in zip(outcome(stopped), outcome(done), strict=True):
        assert one == two


def test_a_stage_without_its_predecessor_and_samples_worth_nothing_are_one_sentence(
    oracle, tmp_path, monkeypatch, capsys
):
    run = ["r1", "--run", str(tmp_path / "r"), *LINE]
    assert main([*run, "--stages", "base", "finetune"]) == 2
    assert (
        f"stage finetune starts from reasoning_rl, which is not among stages = ['base', 'finetune'] and of which {tmp_path / 'r'} holds no"
        in (capsys.readouterr().err)
    )
    assert not (tmp_path / "r").exists()  # said before a step is trained
    monkeypatch.setattr(Oracle, "_solved", lambda self, prompt, rng: "yes")
    assert (
        main(["r1", "--run", str(tmp_path / "s"), *LINE, "--stages", "base", "zero", "cold_start"])
        == 2
    )
    assert "was worth keeping: {'malformed': 320}" in capsys.readouterr().err
    assert main([*run, "--stages", "dream"]) == 2
    assert "stages is ['dream'], expected some of ['base', 'zero'" in capsys.readouterr().err


def test_stages_can_be_added_to_a_finished_run(done, tmp_path):
    folder = shutil.copytree(
        done, tmp_path / "r", ignore=shutil.ignore_patterns("student*", "distill")
    )
    assert (
        main(
            ["r1", "--run", str(folder), *LINE, "--resume", "--stages", "base", "zero", "finetune"]
        )
        == 0
    )
    assert not (folder / "distill").exists()
    assert main(["r1", "--run", str(folder), *LINE, "--resume", "--stages", "distill"]) == 0
    assert model_folder(folder / "distill", (".",))


def test_pairs_that_are_drawn_stay(done, tmp_path):
    """A server need not repeat itself: a reward model goes on with the pairs that it began with."""
    for stage in ("base", "finetune"):
        shutil.copytree(done / stage, tmp_path / stage)
    recipe, model = recipe_in(tmp_path), weights.load(model_folder(done / "finetune", (".",)))[0]
    drawn = align._drawn_pairs(recipe, model, recipe.requests, {"train": 30, "held_out": 10})
    assert {split for split, *_ in drawn} == {"train", "held_out"} and len(drawn) > 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(align, "own_pairs", lambda *_: pytest.fail("drawn again"))
        assert (
            align._drawn_pairs(recipe, model, recipe.requests, {"train": 30, "held_out": 10})
            == drawn
        )


def test_a_user_s_reward_is_paid_alone_and_not_compared_with_itself(tmp_path, done):
    shutil.copytree(done / "base", tmp_path / "base")
    (tmp_path / "reward.py").write_text(
        "def pay(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    assert recipe_in(tmp_path).task_paying(0.2) != recipe_in(tmp_path).task
    own = recipe_in(tmp_path, "--task.reward", f"{tmp_path / 'reward.py'}:pay")
    assert own.task_paying(0.2) is own.task


def cut(path):
    """Half of a file, as an editor or a full disk leaves it."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def checkpoints(folder, stage):
    return sorted(
        (folder / stage / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:])
    )


@pytest.mark.parametrize(
    ("stage", "name"),
    [("zero", "model.safetensors"), ("finetune", "config.json"), ("align", "trainer/state.json")],
)
def test_a_damaged_checkpoint_is_named_and_made_again(done, tmp_path, stage, name, capsys):
    folder = shutil.copytree(done, tmp_path / "r")
    last = checkpoints(folder, stage)[-1]
    cut(last / name)
    # fine-tuning saves its last step only: then starting it afresh is for the user to decide
    if len(checkpoints(folder, stage)) == 1:
        assert main(["r1", "--run", str(folder), *LINE, "--resume"]) == 2
        assert (
            f"every checkpoint in {last.parent} is damaged; remove that folder to start the run afresh"
            in capsys.readouterr().err
        )
        shutil.rmtree(last.parent)
    capsys.readouterr()
    assert main(["r1", "--run", str(folder), *LINE, "--resume"]) == 0
    skipped = f"checkpoint {last} is damaged ({name} does not match its checksum) and is skipped"
    assert (skipped in capsys.readouterr().err) == (stage != "finetune")
    assert outcome(folder) == outcome(done)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "model.safetensors is damaged or no safetensors file"),
        ("config.json", "config.json is damaged: "),
        ("tokenizer.json", "tokenizer.json"),
    ],
)
def test_a_damaged_model_to_start_from_is_one_sentence(done, tmp_path, name, said, capsys):
    start = shutil.copytree(model_folder(done / "zero", (".",)), tmp_path / "start")
    cut(start / name)
    assert main(["r1", "--run", str(tmp_path / "r"), "--start", str(start), *LINE]) == 2
    *begun, error = capsys.readouterr().err.splitlines()
    assert said in error and str(start) in error
    assert not any("deepwright: " in line or "Traceback" in line for line in begun)


def recipe_in(folder, *options):
    place = model_folder(folder / "base", (".",))
    return Recipe(
        resolve_for("r1", split_words([*LINE, *options])),
        folder,
        Journal(folder),
        Tokenizer.load(place),
    )


PREDECESSORS = {
    cold_start: "zero",
    reasoning_rl: "cold_start",
    finetune: "reasoning_rl",
    align: "finetune",
    distill: "reasoning_rl",
}


@pytest.mark.parametrize("stage", PREDECESSORS, ids=lambda module: module.STAGE)
def test_every_stage_names_the_one_that_it_lacks(done, tmp_path, stage):
    shutil.copytree(done / "base", tmp_path / "base")
    before = "rejection" if stage in (finetune, distill) else stage.STAGE
    with pytest.raises(
        ValueError,
        match=f"stage {before} starts from {PREDECESSORS[stage]}, of which {tmp_path} holds no whole checkpoint",
    ):
        stage.run(recipe_in(tmp_path))


@pytest.mark.parametrize("which", ["helpful", "safe"])
def test_a_reward_model_that_ranks_at_random_is_not_learned_from(
    done, tmp_path, which, monkeypatch
):
    """One whose labels say nothing: which of two is preferred, or safe, is a coin of its own."""
    for stage in ("base", "finetune"):
        shutil.copytree(done / stage, tmp_path / stage)
    real, coin = align._examples, Random(0)

    def drawn(tokenizer, pairs, name):
        found = real(tokenizer, pairs, name)
        if name == "helpful":
            return [
                align.Pair(
                    one.prompt_ids,
                    *sorted((one.chosen_ids, one.rejected_ids), key=lambda _: coin.random()),
                )
                for one in found
            ]
        return [align.Labelled(one.ids, coin.random() < 0.5) for one in found]

    monkeypatch.setattr(
        align, "_examples", lambda *asked: (drawn if asked[2] == which else real)(*asked)
    )
    match = rf"reward_{which}: the reward model ranks at random: \d+.\d% of \d+ held-out pairs, expected more than 5\d.\d%"
    with pytest.raises(ValueError, match=match):
        align.run(recipe_in(tmp_path))
    assert not (tmp_path / "align" / "checkpoints").exists()


class Told:
    """Answers every request with the same completions, of each style one, and some twice."""

    def __init__(self, requests, tokenizer, styles) -> None:
        self.requests, self.tokenizer, self.styles = requests, tokenizer, styles

    def sample(self, prompts, sampling):
        known = {asked_as(r): r for members in self.requests.requests.values() for r in members}
        texts = [self.tokenizer.decode(prompt) for prompt in prompts]
        said = [
            [
                completed(Random(0), known[text], style) if style in STYLES else style
                for style in self.styles
            ]
            for text in texts
        ]
        return [
            [
                Completion((*self._ids(one), self.tokenizer.eos_id), (), StopReason.STOP)
                for one in group
            ]
            for group in said
        ]

    def _ids(self, text):
        unknown = self.tokenizer.backend.token_to_id(UNKNOWN)
        return [
            i
            for word in text.split()
            for i in (self.tokenizer.encode(word) if word != "???" else [unknown])
        ]


def test_pairs_of_own_answers_are_ordered_by_the_rules(tmp_path):
    """Every two answers of different worth once each; what is malformed or cannot be read again is in none of them."""
    requests = Requests()
    tokenizer = number_tokenizer((*requests.tokenizer_words(), *TASK.tokenizer_words()), 10)
    odd = "<think> ??? </think> <answer> ann </answer>"
    sampler = Told(requests, tokenizer, ("curt", "best", "best", "rude", "ann ann", odd))
    pairs = align.own_pairs(sampler, tokenizer, requests, "held_out", 10**6, 64, 7)
    assert len(pairs) == 3 * requests.size("held_out")
    for problem, better, worse in pairs:
        request = problem.columns["request"]
        styles = {completed(Random(0), request, style): style for style in STYLES}
        assert (styles.get(better), styles.get(worse)) in [
            ("best", "curt"),
            ("best", "rude"),
            ("curt", "rude"),
        ]
    few = align.own_pairs(
        sampler, tokenizer, requests, "held_out", requests.size("held_out"), 64, 7
    )
    assert len({problem.index for problem, *_ in few}) == len(few) == requests.size("held_out")
    assert (
        align.own_pairs(
            Told(requests, tokenizer, ("best", "best")), tokenizer, requests, "train", 100, 64, 7
        )
        == []
    )


def test_a_token_that_is_no_word_is_paid_nothing_and_stops_nothing(done):
    requests, tokenizer = Requests(), Tokenizer.load(model_folder(done / "base", (".",)))
    reward_model = align.RewardModel(weights.load(model_folder(done / "base", (".",)))[0])
    problem = requests.problem(0, "train")
    good = completed(Random(0), problem.columns["request"], "best")
    paid = align.ModelReward(requests, reward_model, reward_model, tokenizer)
    scores = paid.score_many(
        [problem] * 3, [good, good.replace("<think>", "<think> <unk>"), "no layout"]
    )
    # a new head says nothing: sigmoid(0) each
    assert [score.value for score in scores] == pytest.approx([0.1 + 0.5 + 0.5, 0, 0])
    assert [score.verdict for score in scores] == [
        Verdict.CORRECT,
        Verdict.MALFORMED,
        Verdict.MALFORMED,
    ]


def test_a_check_that_is_down_keeps_nothing_and_says_why(done, tmp_path):
    for stage in ("base", "zero"):
        shutil.copytree(done / stage, tmp_path / stage)
    (tmp_path / "reward.py").write_text(
        "def pay(completions, **columns):\n    raise OSError('the judge does not answer')\n"
    )
    with pytest.raises(
        ValueError,
        match="of 320 samples .* was worth keeping: {'failed': .*}; the check failed: .* the judge does not answer",
    ):
        cold_start.run(recipe_in(tmp_path, "--task.reward", f"{tmp_path / 'reward.py'}:pay"))
    assert not list((tmp_path / "cold_start").iterdir())


def test_samples_too_long_to_learn_from_are_one_sentence(done, tmp_path):
    for stage in ("base", "zero"):
        shutil.copytree(done / stage, tmp_path / stage)
    with pytest.raises(ValueError, match="kept.jsonl has no document of at most 9 tokens among "):
        cold_start.run(recipe_in(tmp_path, "--cold-start.sft.length", "9"))


@pytest.mark.parametrize(
    ("text", "stop", "why"),
    [
        ("<think> 3 + 7 = 10 yes </think> <answer> 3 + 7 </answer>", StopReason.STOP, None),
        (
            "<think> 3 + 7 = 10 yes </think> <answer> 3 + 7 </answer>",
            StopReason.LENGTH,
            "cut at the token limit",
        ),
        (
            "<think> 3 + 7 = 10 对 </think> <answer> 3 + 7 </answer>",
            StopReason.STOP,
            "mixes languages",
        ),
        ("<think> 3 + 7 = 10 </think> <answer> 3 * 7 </answer>", StopReason.STOP, "wrong"),
        ("3 + 7", StopReason.STOP, "malformed"),
        (
            "<think> " + "7 - 3 = 4 wait 7 - 3 = 4 wait " * 2 + "</think> <answer> 3 + 7 </answer>",
            StopReason.STOP,
            "repeats itself",
        ),
        (
            "<think> "
            + " ".join(f"{n} + 1 = {n + 1} wait" for n in range(9))
            + " </think> <answer> 3 + 7 </answer>",
            StopReason.STOP,
            "too long",
        ),
    ],
)
def test_what_speaks_against_a_sample(text, stop, why):
    problem = Problem(0, "nums 3 7 make 10 :", "3 + 7", "")
    ids = tuple(hash(word) for word in text.split())
    rollout = Rollout(
        problem, (1,), Completion(ids, (-1.0,) * len(ids), stop), text, TASK.score(problem, text)
    )
    assert why_not(rollout, longest=50) == why


def test_a_judge_takes_the_place_of_right_and_wrong():
    requests = Requests()
    problem = requests.problem(0, "train")
    verdicts = {
        style: rejection.by_rules(problem, completed(Random(1), problem.columns["request"], style))
        for style in STYLES
    }
    assert (
        verdicts["best"] is verdicts["curt"] is None
        and verdicts["rude"] == "turned down by the judge"
    )


def test_samples_with_a_token_that_is_no_word_are_not_kept(tmp_path):
    requests, tokenizer = (
        Requests(),
        number_tokenizer((*Requests().tokenizer_words(), *TASK.tokenizer_words()), 10),
    )
    sampler = Told(requests, tokenizer, ("best", "<think> ??? </think> <answer> ann </answer>"))
    settings = HarvestSettings(problems=3, samples=2)
    rows = harvest(settings, requests, sampler, tokenizer, tmp_path, 64, 0, judge=lambda *_: None)
    assert len(rows) == 3 and json.loads((tmp_path / "dropped.json").read_text()) == {
        "kept": 3,
        "a token that stands for no word": 3,
    }
    assert all(tokenizer.encode(row["completion"]) for row in rows)


def test_the_error_of_a_win_rate_takes_answers_to_a_request_as_one():
    """Two requests, one won by all four answers and one lost by all: the error is that of two figures, 1 and 0."""
    requests = Requests()

    def made(style):
        return [
            completed(Random(0), requests.problem(i // 4, "held_out").columns["request"], style)
            for i in range(8)
        ]

    def of(texts):
        return type(
            "E",
            (),
            {
                "generations": [
                    type("G", (), {"problem": i // 4, "text": t}) for i, t in enumerate(texts)
                ]
            },
        )

    best, rude = made("best"), made("rude")
    assert win_rate(requests, of([*rude[:4], *best[4:]]), of([*best[:4], *rude[4:]])) == {
        "after": 0.5,
        "standard_error": pytest.approx(0.5),
    }


def test_win_rate_counts_ties_as_half():
    requests = Requests()
    best, rude = (
        [
            completed(Random(i), requests.problem(i, "held_out").columns["request"], style)
            for i in range(4)
        ]
        for style in ("best", "rude")
    )

    def of(texts):
        return type(
            "E",
            (),
            {
                "generations": [
                    type("G", (), {"problem": i, "text": t}) for i, t in enumerate(texts)
                ]
            },
        )

    assert (
        win_rate(requests, of(rude), of(best))["after"] == 1
        and win_rate(requests, of(best), of(rude))["after"] == 0
    )
    assert win_rate(requests, of(rude), of([*best[:2], *rude[2:]])) == {
        "after": 0.75,
        "standard_error": pytest.approx(0.1443, abs=1e-4),
    }
