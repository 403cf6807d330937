"""A sampler outside: any server with OpenAI's /v1/completions (vLLM, SGLang), fed with token ids
and read as token ids.

The server has weights of its own. Whenever the trainer's have moved they are saved as a Hugging
Face folder, whole or not at all, and loaded by the user's command or URL. Ids must come back as ids
(`token_ids`, or tokens written "token_id:17"): re-encoded text is other tokens. Its precision and
kernels make its probabilities differ: the gap is measured at every step, an alarm reads it,
importance_cap weighs it. For T != 1 or top-p they must be the processed ones before truncation
(vLLM: --logprobs-mode processed_logprobs). A resumed run is exact only as far as the server repeats
itself. Nothing that it says is believed: ids, log-probabilities, lengths and reasons are checked
before anything is trained on. Left out: streaming.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deepwright import weights
from deepwright.files import parse_json
from deepwright.model import Transformer
from deepwright.refusals import LARGEST, expect, holds, quoted
from deepwright.rl.server import Server, ask_each
from deepwright.sampler import Completion, Sampling, StopReason, Watch
from deepwright.seeds import stream
from deepwright.text import Tokenizer

KEY = "OPENAI_API_KEY"  # environment variable of a server's key
WEB = ("http://", "https://")
REQUEST = 35  # purpose of a random stream: the seed that each request gets
TOKEN_BYTES = (
    512  # of an answer, for a token of prompt or completion: several times what servers write
)
ANSWER_BYTES = 1 << 20  # beside that
# Of a token that was sampled. Above 0 only by rounding; servers write -9999 where they have none.
LEAST, MOST = -1000.0, 1e-3


@dataclass(frozen=True)
class Handover:
    """`reload` is a command in which {folder} stands for the saved weights ("ssh gpu reload.sh {folder}"), run without a shell, or an http(s) URL
    that gets {"model_path": folder} (SGLang: /update_weights_from_disk). It must return once the server answers with the new weights."""

    model: Transformer
    tokenizer: Tokenizer
    folder: Path
    reload: str


def reload_words(reload: str) -> list[str]:
    """The words of a reload command. ValueError where it is none."""
    try:
        words = shlex.split(reload)
    except ValueError as error:
        raise ValueError(f"the reload command {quoted(reload)} cannot be read: {error}") from None
    expect(bool(words), "the reload command", reload, "a command or a URL")
    return words


def fingerprint(model: Transformer) -> list[int]:
    """The sum of each tensor's bits, read as whole numbers. (Tensor versions will not do: the fused optimizer does not count its writes.)"""
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return [
        int(t.view(words[t.element_size()]).sum(dtype=torch.int64))
        for t in model.state_dict().values()
    ]


class OutsideSampler:
    """Implements the Sampler protocol over `url` (".../v1"). Each prompt is one request with `n`
    samples; `parallel` of them are in flight.

    `text_of` turns ids into a prompt string for servers that take no ids. Without `handover` the
    server keeps its weights: for evaluation, or where something else moves them. `vocabulary`: ids
    are below it (None: that of the model handed over). `timeout`: seconds for an answer, and for
    taking weights. Raises ValueError in one sentence when the server does not answer, answers with
    an error, or says what no sampler can say.
    """

    def __init__(
        self, url: str, model: str, handover: Handover | None = None, *, text_of: Callable[[Sequence[int]], str] | None = None,
        key: str = "", parallel: int = 64, timeout: float = 600.0, vocabulary: int | None = None,
    ) -> None:  # fmt: skip
        if not url.startswith(WEB):
            raise ValueError(
                f"the sampler's URL is {quoted(url)}, expected http://... or https://..."
            )
        self.url, self.model, self.handover, self.text_of = (
            url.rstrip("/"),
            model,
            handover,
            text_of,
        )
        if not (key.isascii() and key.isprintable()):  # not quoted: it is a secret
            raise ValueError("the server's key has characters that no header holds")
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self.server, self.parallel, self.timeout = Server(headers, timeout), parallel, timeout
        # not to write where another run is
        self._place = handover and handover.folder.parent.stat()
        own = LARGEST if handover is None else handover.model.config.vocab_size
        self.vocabulary = own if vocabulary is None else vocabulary
        self.watch: Watch = lambda ended, running: None  # told of each prompt that is answered
        self._handed_over: list[int] = []  # fingerprint of the weights that the server has

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """[P][n] completions; the request of prompt p gets a seed that depends on (sampling.seed, p) alone."""
        self._hand_over()
        found: dict[int, list[Completion]] = {}
        for p, answered in ask_each(
            lambda p: self._complete(prompts[p], sampling, p),
            len(prompts),
            self.parallel,
            self.timeout,
            self.url,
        ):
            found[p] = answered
            self.watch(len(answered), min(self.parallel, len(prompts) - len(found)))
        return [found[p] for p in range(len(prompts))]

    def _complete(self, prompt: Sequence[int], sampling: Sampling, p: int) -> list[Completion]:
        asked = {
            "model": self.model, "prompt": list(prompt) if self.text_of is None else self.text_of(prompt), "n": sampling.n,
            "max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p, "logprobs": 1,
            "stop_token_ids": list(sampling.stop_ids), "seed": int(stream(sampling.seed, REQUEST, p).random() * 2**31),
            "return_token_ids": True, "return_tokens_as_token_ids": True, "skip_special_tokens": False,
        } | ({"top_k": sampling.top_k} if sampling.top_k else {})  # fmt: skip
        tokens = sampling.n * (len(prompt) + sampling.max_tokens)
        most = ANSWER_BYTES + TOKEN_BYTES * tokens
        answer = self.server.ask(f"{self.url}/completions", asked, most)
        return [self._completion(choice, sampling) for choice in self._choices(answer, sampling.n)]

    def _choices(self, answer: bytes, n: int) -> list[dict[str, Any]]:
        """The n choices in the order of their indices, which must be 0 to n - 1."""
        try:
            value = parse_json(answer, self.url)
        except ValueError as error:
            raise ValueError(f"{error}: it answered {quoted(answer, 80)}") from None
        choices = value.get("choices") if isinstance(value, dict) else None
        if not holds(choices, list[dict]) or not all(holds(c.get("index"), int) for c in choices):
            raise ValueError(
                f"{self.url} answered {quoted(value, 80)}, expected choices, each with its index"
            )
        if len(choices) != n:
            raise ValueError(f"{self.url} returned {len(choices)} completions, expected {n}")
        choices = sorted(choices, key=lambda choice: choice["index"])
        indices = [choice["index"] for choice in choices]
        expect(indices == list(range(n)), f"indices of {self.url}", indices, f"0 to {n - 1}")
        return choices

    def _completion(self, choice: dict[str, Any], sampling: Sampling) -> Completion:
        said = choice["logprobs"] if isinstance(choice.get("logprobs"), dict) else {}
        ids = choice.get("token_ids") or _written_ids(said.get("tokens"))
        log_probs = said.get("token_logprobs") or []
        self._check_tokens(ids, log_probs, sampling)
        reason, stopped = choice.get("finish_reason"), ids[-1] in sampling.stop_ids
        known = reason in ("stop", "length")
        expect(known, f"finish_reason of {self.url}", reason, "'stop' or 'length'")
        if reason == "stop" and not stopped:
            raise ValueError(
                f"{self.url} stopped after token {ids[-1]}, expected a stop id {sampling.stop_ids} as the last token"
            )
        return Completion(
            tuple(ids),
            tuple(min(float(value), 0.0) for value in log_probs),
            StopReason.STOP if stopped else StopReason.LENGTH,
        )

    def _check_tokens(self, ids: Any, log_probs: Any, sampling: Sampling) -> None:
        """ValueError for what no sampler asked in this way can have drawn."""
        if not (
            isinstance(ids, list) and isinstance(log_probs, list) and len(ids) == len(log_probs) > 0
        ):
            counts = " and ".join(
                f"{len(found) if isinstance(found, list) else 'no list of'} {what}"
                for found, what in ((ids, "token ids"), (log_probs, "log-probabilities"))
            )
            raise ValueError(
                f"{self.url} returned {counts}, expected as many of both: text is not enough"
            )
        most = sampling.max_tokens
        expect(
            len(ids) <= most, f"length of a completion of {self.url}", len(ids), f"at most {most}"
        )
        for token, log_prob in zip(ids, log_probs, strict=True):
            known = holds(token, int) and 0 <= token < self.vocabulary
            expected = f"a whole number from 0 to {self.vocabulary - 1}"
            expect(known, f"a token id of {self.url}", token, expected)
            drawn = holds(log_prob, float) and LEAST <= log_prob <= MOST
            expected = f"that of a sampled token, {LEAST:g} to 0"
            expect(drawn, f"a log-probability of {self.url}", log_prob, expected)
        early = [place for place, token in enumerate(ids[:-1]) if token in sampling.stop_ids]
        if early:
            raise ValueError(
                f"{self.url} went on after the stop id {ids[early[0]]}, expected it as the last"
            )

    def _hand_over(self) -> None:
        """Saves and reloads if the weights differ from those handed over last."""
        if self.handover is None or (seen := fingerprint(self.handover.model)) == self._handed_over:
            return
        folder, reload = self.handover.folder, self.handover.reload
        if not (folder.parent.is_dir() and os.path.samestat(folder.parent.stat(), self._place)):
            raise ValueError(f"the folder {folder.parent}, where weights are handed over, is gone")
        weights.save(self.handover.model, self.handover.tokenizer, folder)
        if reload.startswith(WEB):
            self._ask_to_load(reload, str(folder))
        else:
            words = [word.replace("{folder}", str(folder)) for word in reload_words(reload)]
            self._run(reload, words)
        self._handed_over = seen

    def _ask_to_load(self, url: str, folder: str) -> None:
        answer = self.server.ask(url, {"model_path": folder}, ANSWER_BYTES)
        if answer.lstrip().startswith(b"{") and parse_json(answer, url).get("success") is False:
            raise ValueError(f"{url} answered {quoted(answer)}: the weights were not taken")

    def _run(self, reload: str, command: list[str]) -> None:
        """The output goes to a file: a pipe would stay open in what the command leaves running."""
        with tempfile.TemporaryFile() as said:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                    timeout=self.timeout, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise ValueError(
                    f"the reload command {quoted(reload)} did not end within {self.timeout:g} s"
                ) from None
            except (OSError, ValueError) as error:  # the latter: NUL in a word
                raise ValueError(
                    f"the reload command {quoted(reload)} did not run: {error}"
                ) from None
            if done.returncode:
                said.seek(max(0, said.seek(0, 2) - 200))
                last = " ".join(said.read().decode(errors="replace").split())
                raise ValueError(
                    f"the reload command {quoted(reload)} ended with {done.returncode}: {last}"
                )


def _written_ids(tokens: Any) -> list[int]:
    """Ids written as tokens, "token_id:17". Anything else is left out, and then their number is
    wrong."""
    texts = (
        [token for token in tokens if isinstance(token, str)] if isinstance(tokens, list) else []
    )
    written = [re.fullmatch(r"token_id:(\d{1,18})", text) for text in texts]
    return [int(one[1]) for one in written if one]
