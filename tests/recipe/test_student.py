"""benchmarks/student.py: a student beside other software. By hand with a scripted model, on a small run folder, and with llama.cpp where it is."""

from __future__ import annotations

import importlib.util
import re
import shutil

import pytest
import torch

from benchmarks import student
from benchmarks.student import LlamaCpp, OneByOne, Timed
from deepwright import weights
from deepwright.evaluate import evaluate
from deepwright.inference.engine import Engine
from deepwright.recipe.base import new_model, tokenizer_of
from deepwright.recipe.resolve import split_words, to_toml
from deepwright.recipe.session import CONFIG
from deepwright.recipe.settings import resolve_for
from deepwright.sampler import Completion, Sampling, StopReason

# Products of length n <= 128 over 4 layers in fp32: sqrt(4 * 7 * 128) 2^-24 = 4e-6 of the largest logit.
BOUND = 4e-6


class Script:
    """Says the same ids to every prompt, for ever, as llama_cpp.Llama.generate does."""

    def __init__(self, *ids: int) -> None:
        self.ids, self.asked = ids, []

    def generate(self, prompt, *, temp, repeat_penalty):
        self.asked.append((tuple(prompt), temp, repeat_penalty))
        yield from self.ids
        while True:
            yield 5


def test_llama_cpp_as_a_sampler_stops_where_it_should():
    script = Script(7, 8, 2, 9)
    sampler = LlamaCpp(script, context=9)
    first, second = (
        found for (found,) in sampler.sample([[1, 3], [1, 4, 4]], Sampling(50, 0.0, stop_ids=(2,)))
    )
    assert first.token_ids == second.token_ids == (7, 8, 2) and first.stop is StopReason.STOP
    # greedy, and repetition is not punished
    assert script.asked == [((1, 3), 0.0, 1.0), ((1, 4, 4), 0.0, 1.0)]
    ((cut,),) = sampler.sample([[1]], Sampling(2, 0.0, stop_ids=(2,)))
    assert cut.token_ids == (7, 8) and cut.stop is StopReason.LENGTH
    ((full,),) = sampler.sample([[1, 3, 3, 3]], Sampling(50, 0.0, stop_ids=(99,)))
    # 4 + 5 = the context
    assert full.token_ids == (7, 8, 2, 9, 5) and full.stop is StopReason.LENGTH


def test_llama_cpp_is_greedy_only():
    with pytest.raises(ValueError, match="temperature is 1 and n 1, expected 0 and 1"):
        LlamaCpp(Script(), 9).sample([[1]], Sampling(4))


class Counting:
    """Returns the number of prompts that it was given at once."""

    def sample(self, prompts, sampling):
        return [
            [Completion((len(prompts), *prompt), (-1.0,) * (1 + len(prompt)), StopReason.STOP)]
            for prompt in prompts
        ]


def test_one_by_one_and_timed_keep_order_and_all_that_is_said():
    timed = Timed(OneByOne(Counting()))
    assert [[one.token_ids for one in n] for n in timed.sample([[3], [4, 5]], Sampling(9))] == [
        [(1, 3)],
        [(1, 4, 5)],
    ]
    assert timed.said == [(1, 3), (1, 4, 5)] and timed.seconds > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with an aligned model and a student, both untrained: what matters here is that their numbers come out elsewhere."""
    folder = tmp_path_factory.mktemp("run")
    settings = resolve_for(
        "r1", split_words(["--quick", "--evaluation.problems", "6", "--rl.max-tokens", "12"])
    )
    tokenizer = tokenizer_of(settings)
    (folder / CONFIG).write_text(to_toml(settings))
    weights.save(new_model(settings, tokenizer), tokenizer, folder / "align")
    # rows of 96: they can be quantised
    wide = resolve_for("r1", split_words(["--config", "laptop", "--seed", "4"])).distill.model
    taught = type(settings)(model=wide, task=settings.task, corpus=settings.corpus, seed=4)
    weights.save(new_model(taught, tokenizer), tokenizer, folder / "distill")
    return folder


def lines_of(run) -> dict[str, list[str]]:
    """Name of a side -> [size, share, error, rate, same answers] as printed; and the lines about transformers by their stage."""
    lines = list(student.report(run, 0, 1))
    found = {
        line[:28].strip(): line[28:].replace("±", " ").split()
        for line in lines[2:]
        if "transformers" not in line
    }
    return found | {line.split()[0]: line.split() for line in lines if "in transformers" in line}


def check_lines(found: dict[str, list[str]], run) -> None:
    model, tokenizer = weights.load(run / "distill", torch.float32)
    task = student.asked_of(run, tokenizer, 0).task
    alone = evaluate(
        OneByOne(Engine(model.eval())),
        tokenizer,
        task,
        problems=6,
        samples=1,
        max_tokens=12,
        temperature=0.0,
    )
    for name in ("deepwright, all at once", "deepwright, one by one"):
        size, unit, share, *_, same = found[name]
        assert (unit, float(share), same) == ("MB", round(alone.pass_at_1, 3), "100%")
        assert float(size) == pytest.approx(
            (run / "distill" / "model.safetensors").stat().st_size / 1e6, abs=0.01
        )
    for stage in ("align", "distill"):
        assert float(found[stage][6]) <= BOUND and " ".join(found[stage][-3:]) == "are the same"


def test_a_run_is_reported(run):
    found = lines_of(run)
    check_lines(found, run)
    assert ("llama.cpp, Q8_0" in found) == (importlib.util.find_spec("llama_cpp") is not None)


def test_a_folder_that_means_something_else_in_transformers_is_seen(run, tmp_path):
    """One matrix of ours is 1% larger than the one that transformers reads."""
    folder = shutil.copytree(run / "distill", tmp_path / "bent")
    rows = [[1, 3, 4, 5, 6, 7]]
    assert student.opened_in_transformers(folder, ["nums 3 7"], rows)[0] <= BOUND
    real = weights.load

    def bent(place, dtype):
        model, tokenizer = real(place, dtype)
        model.layers[1].attention.o.weight.data.mul_(1.01)
        return model, tokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "load", bent)
        assert student.opened_in_transformers(folder, ["nums 3 7"], rows)[0] > 10 * BOUND


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
def test_llama_cpp_gives_the_same_answers_and_a_smaller_file(run):
    found = lines_of(run)
    assert (
        found["llama.cpp, F32"][-1] == "100%"
        and found["llama.cpp, F32"][2] == found["deepwright, all at once"][2]
    )
    sizes = [float(found[f"llama.cpp, {kind}"][0]) for kind in ("F32", "Q8_0", "Q4_0")]
    # Of 32 bits a number Q8_0 keeps 8.5, Q4_0 4.5; norms, and with Q4_0 the embedding (an eighth here, in Q8_0), keep more, and metadata is the same.
    assert sizes[1] < 0.5 * sizes[0] and sizes[2] < 0.85 * sizes[1]


def test_what_is_no_whole_run_is_one_sentence(run, tmp_path):
    with pytest.raises(
        ValueError,
        match="holds no whole checkpoint of stage distill, expected a run with all stages",
    ):
        list(student.report(tmp_path, 0, 1))
    shutil.copytree(run / "distill", tmp_path / "distill")
    with pytest.raises(
        ValueError,
        match=f"{re.escape(str(tmp_path))} has no config.toml, expected the folder of a run with all stages",
    ):
        list(student.report(tmp_path, 0, 1))


def test_where_llama_cpp_is_not_there_it_is_said(run, capsys, monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "llama_cpp" else object()
    )
    monkeypatch.setattr("sys.argv", ["student.py", str(run), "--problems", "2", "--threads", "1"])
    with pytest.raises(SystemExit) as stopped:
        student.main()
    assert stopped.value.code == 1 and capsys.readouterr().err == f"student.py: {student.MISSING}\n"
