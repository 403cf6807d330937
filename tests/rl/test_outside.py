"""The outside sampler against a real HTTP server on this machine that runs a model of its own from the folder it is handed."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from deepwright import weights
from deepwright.cli import main
from deepwright.config import preset
from deepwright.files import read_records
from deepwright.metrics import JsonlTracker
from deepwright.model import Transformer
from deepwright.rl import train_grpo
from deepwright.rl.outside import Handover, OutsideSampler
from deepwright.sampler import Sampler, Sampling, StopReason
from deepwright.tasks import Countdown
from deepwright.text import Tokenizer, number_tokenizer
from tests.rl.fakes import ONE_UPDATE, TOKENIZER, FakeSampler, SayYes, make_model

EOS = TOKENIZER.eos_id


class Server(ThreadingHTTPServer):
    """Answers /v1/completions in the shape of vLLM's, /reload with the weights of the folder named. `change` bends its answers."""

    def __init__(self, model: Transformer | None = None, tokenizer: Tokenizer = TOKENIZER) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.tokenizer = model or make_model(), tokenizer
        self.asked, self.change, self.loads, self.lock = (
            [],
            lambda choice: choice,
            [],
            threading.Lock(),
        )
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def complete(self, body: dict) -> dict:
        prompt = (
            body["prompt"]
            if isinstance(body["prompt"], list)
            else self.tokenizer.encode_prompt(body["prompt"])
        )
        stop = tuple(body["stop_token_ids"])
        sampling = Sampling(
            body["max_tokens"], body["temperature"], stop_ids=stop, n=body["n"], seed=body["seed"]
        )
        choices = []
        for index, made in enumerate(FakeSampler(self.model).sample([prompt], sampling)[0]):
            tokens = {
                "tokens": [f"token_id:{t}" for t in made.token_ids],
                "token_logprobs": list(made.log_probs),
            }
            choice = {
                "index": index,
                "text": "",
                "token_ids": list(made.token_ids),
                "logprobs": tokens,
            }
            choices.append(
                self.change(
                    choice | {"finish_reason": "stop" if made.stop is StopReason.STOP else "length"}
                )
            )
        return {"choices": choices[::-1]}  # in any order


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, body, self.headers.get("Authorization")))
            if self.path == "/reload":
                self.server.loads.append(body["model_path"])
                weights.load_into(self.server.model, Path(body["model_path"]))
                self.reply(200, {"success": True})
            elif body["max_tokens"] > 100:
                self.reply(400, {"error": "max_tokens is too large"})
            else:
                self.reply(200, self.server.complete(body))

    def reply(self, code: int, found: dict) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("deepwright.rl.server.PAUSES", (0.0, 0.0))


@pytest.fixture
def server():
    made = Server()
    yield made
    made.shutdown()
    made.server_close()


PROMPTS = [[0, 3, 7], [0, 3], [0, 9, 9, 4], [0, 3, 7]]
ASKED = Sampling(4, 0.8, stop_ids=(EOS,), n=3, seed=5)


def test_ids_log_probs_and_stop_reasons_cross_and_equal_prompts_draw_apart(server):
    sampler: Sampler = OutsideSampler(server.url + "/v1/", "tiny", key="secret")
    found = sampler.sample(PROMPTS, ASKED)
    # the request's seed follows from (seed, prompt): threads change nothing
    assert found == sampler.sample(PROMPTS, ASKED)
    assert found != sampler.sample(PROMPTS, replace(ASKED, seed=6))
    assert [len(group) for group in found] == [3] * 4 and found[0] != found[3]
    asked = {
        tuple(body["prompt"]): body
        for path, body, key in server.asked
        if path == "/v1/completions" and key == "Bearer secret"
    }
    body = asked[0, 3]
    assert (body["temperature"], body["n"], body["stop_token_ids"], body["model"]) == (
        0.8,
        3,
        [EOS],
        "tiny",
    )
    for made in (made for group in found for made in group):
        assert len(made.token_ids) == len(made.log_probs) and (made.token_ids[-1] == EOS) == (
            made.stop is StopReason.STOP
        )
    model, made = make_model(), found[2][1]
    logits = model(torch.tensor([[*PROMPTS[2], *made.token_ids]]))[0, 3:-1] / 0.8
    exact = logits.log_softmax(-1).gather(1, torch.tensor(made.token_ids)[:, None])[:, 0]
    # the same fp32 forward at another batch size
    assert torch.tensor(made.log_probs) == pytest.approx(exact.detach().numpy(), abs=1e-5)


def test_ids_written_as_tokens_are_read_and_prompts_may_go_as_text(server):
    whole = OutsideSampler(server.url, "tiny").sample(PROMPTS[:1], ASKED)
    server.change = lambda choice: {
        name: value for name, value in choice.items() if name != "token_ids"
    }
    assert OutsideSampler(server.url, "tiny").sample(PROMPTS[:1], ASKED) == whole
    prompt = TOKENIZER.encode_prompt("say 1")
    texts = OutsideSampler(server.url, "tiny", text_of=lambda ids: "say 1").sample([prompt], ASKED)
    assert server.asked[-1][1]["prompt"] == "say 1" and texts == OutsideSampler(
        server.url, "tiny"
    ).sample([prompt], ASKED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: (
                c | {"token_ids": None, "logprobs": {"tokens": ["yes"], "token_logprobs": [-1.0]}}
            ),
            "returned 0 token ids and 1 log-prob",
        ),
        (
            lambda c: c | {"logprobs": None},
            "token ids and 0 log-probabilities, expected as many of both",
        ),
        (
            lambda c: (
                c
                | {
                    "token_ids": [4],
                    "logprobs": {"token_logprobs": [-1.0]},
                    "finish_reason": "stop",
                }
            ),
            "stopped after token 4, expected",
        ),
    ],
)
def test_answers_that_cannot_be_trained_on_are_refused(server, change, words):
    server.change = change
    with pytest.raises(ValueError, match=words):
        OutsideSampler(server.url, "tiny").sample(PROMPTS[:1], ASKED)


def test_a_server_that_errs_or_is_not_there_ends_in_one_sentence(server):
    with pytest.raises(ValueError, match="answered 400: .*max_tokens is too large"):
        OutsideSampler(server.url, "tiny").sample(PROMPTS, replace(ASKED, max_tokens=101))
    with pytest.raises(ValueError, match=r"0:80x/completions did not answer: .*nonnumeric port"):
        OutsideSampler("http://127.0.0.1:0:80x", "tiny").sample(PROMPTS, ASKED)
    with pytest.raises(ValueError, match=r"127.0.0.1:9/completions did not answer: .*refused"):
        OutsideSampler("http://127.0.0.1:9", "tiny").sample(PROMPTS, ASKED)
    with pytest.raises(ValueError, match="URL is 'localhost:8000/v1', expected http://"):
        OutsideSampler("localhost:8000/v1", "tiny")


def train(folder: Path, sampler, model, **changes) -> list[dict]:
    config = replace(
        ONE_UPDATE, steps=4, learning_rate=0.02, warmup_steps=0, zero_variance="keep", **changes
    )
    train_grpo(
        config,
        model,
        TOKENIZER,
        SayYes(),
        sampler,
        folder / "zero",
        JsonlTracker(folder / "metrics.jsonl"),
    )
    return read_records(folder / "metrics.jsonl")


def test_training_hands_the_weights_over_before_every_round(server, tmp_path):
    model = make_model()
    sampler = OutsideSampler(
        server.url, "tiny", Handover(model, TOKENIZER, tmp_path / "handed", server.url + "/reload")
    )
    records = train(tmp_path, sampler, model)
    # Sampler and trainer are the same fp32 weights: rounding alone. Stale weights show at once.
    assert max(record["log_prob_gap_max"] for record in records) <= 1e-5
    assert server.loads == [str(tmp_path / "handed")] * 4
    before = len(server.loads)
    sampler.sample(PROMPTS, ASKED)
    sampler.sample(PROMPTS, ASKED)
    assert len(server.loads) == before + 1  # the last update; then nothing moved
    assert sorted(path.name for path in tmp_path.iterdir()) == ["handed", "metrics.jsonl", "zero"]


def test_a_server_that_keeps_old_weights_shows_in_the_gap_and_importance_weights_see_it(
    server, tmp_path
):
    stale = train(tmp_path / "a", OutsideSampler(server.url, "tiny"), make_model())
    assert stale[-1]["log_prob_gap_max"] > 1e-2
    weighed = train(
        tmp_path / "b", OutsideSampler(server.url, "tiny"), make_model(), importance_cap=2.0
    )
    # the first round is on-policy: weights of 1
    assert weighed[0]["grad_norm"] == pytest.approx(stale[0]["grad_norm"], rel=1e-4)
    assert weighed[2]["grad_norm"] != pytest.approx(stale[2]["grad_norm"], rel=1e-3)


def test_a_reload_command_gets_the_folder_and_its_failure_is_a_sentence(server, tmp_path):
    model = make_model(seed=1)
    copy = f"{sys.executable} -c 'import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])' {{folder}} {tmp_path / 'there'}"
    OutsideSampler(
        server.url, "tiny", Handover(model, TOKENIZER, tmp_path / "handed", copy)
    ).sample(PROMPTS, ASKED)
    arrived = make_model()
    weights.load_into(arrived, tmp_path / "there")
    assert all(
        torch.equal(tensor, arrived.state_dict()[name])
        for name, tensor in model.state_dict().items()
    )
    assert shutil.which("false")
    for command, words in (
        ("false {folder}", "'false {folder}' ended with 1"),
        ("no-such-program {folder}", "did not run: .*no-such-program"),
    ):
        with pytest.raises(ValueError, match=words):
            OutsideSampler(
                server.url, "tiny", Handover(model, TOKENIZER, tmp_path / "handed", command)
            ).sample(PROMPTS, ASKED)


@pytest.fixture
def countdown_server(tmp_path):
    """A served model, and the folder that it was loaded from."""
    tokenizer = number_tokenizer(Countdown().tokenizer_words(), 99)
    config = replace(
        preset("laptop"),
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_nextn_predict_layers=0,
    )
    model = Transformer(config, torch.Generator().manual_seed(0))
    weights.save(model, tokenizer, tmp_path / "model")
    made = Server(model, tokenizer)
    yield made, tmp_path / "model"
    made.shutdown()
    made.server_close()


def test_eval_asks_a_server_and_saves_what_it_said(countdown_server, tmp_path, monkeypatch, capsys):
    server, folder = countdown_server
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    sizes = ["--problems", "3", "--samples", "4", "--max-tokens", "6", "--served", "tiny"]
    asked = [
        server.url + "/v1",
        "--tokenizer",
        str(folder),
        "--tasks",
        "countdown",
        "countdown",
        "--save",
        str(tmp_path / "said.jsonl"),
    ]
    assert main(["eval", *asked, *sizes]) == 0
    out = capsys.readouterr().out
    assert out.count("3 held-out problems of countdown") == 2 and "pass@4" in out
    assert {(body["model"], body["n"], key) for _, body, key in server.asked} == {
        ("tiny", 4, "Bearer secret")
    } and not server.loads
    saved = read_records(tmp_path / "said.jsonl")
    assert len(saved) == 2 * 3 * 4 and {"prompt", "text", "verdict", "length"} <= saved[0].keys()
    for wrong, words in (
        ([server.url], "is a URL: --tokenizer FOLDER"),
        ([str(folder), "--tokenizer", str(folder)], "has its own"),
        (
            [server.url, "--tokenizer", str(folder), "--save", "/nowhere/x"],
            "there is no folder /nowhere",
        ),
    ):
        assert main(["eval", *wrong]) == 2
        assert words in capsys.readouterr().err


def test_rl_trains_on_what_a_server_samples_with_the_weights_of_each_round(
    countdown_server, tmp_path, capsys
):
    server, folder = countdown_server
    line = f"rl --run {tmp_path}/run --start {folder} --sampler.url {server.url}/v1 --rl.steps 3 --rl.prompts 4 --rl.samples 4 --rl.max-tokens 5"
    line += " --rl.zero-variance keep --evaluation.problems 3 --evaluation.samples 2 --rl.evaluate-every 0 --threads 1 --rl.compute float32"
    assert main(line.split()) == 2
    assert (
        "expected both: it must take the weights as they change" in capsys.readouterr().err
        and not (tmp_path / "run").exists()
    )
    assert main([*line.split(), "--sampler.reload", server.url + "/reload"]) == 0
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert len(records) == 3 and max(record["log_prob_gap_max"] for record in records) <= 1e-5
    assert set(server.loads) == {str(tmp_path / "run" / "handed_over")}
