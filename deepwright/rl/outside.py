"""A sampler outside: any server with OpenAI's /v1/completions (vLLM, SGLang), fed with token ids and read as token ids.

The server has weights of its own. Whenever the trainer's have moved they are saved as a Hugging Face folder, whole or not at all, and loaded by the
user's command or URL. Ids must come back as ids (`token_ids`, or tokens written "token_id:17"): re-encoded text is other tokens. Its precision and
kernels make its probabilities differ: the gap is measured at every step, an alarm reads it, importance_cap weighs it. For T != 1 or top-p they must be
the processed ones before truncation (vLLM: --logprobs-mode processed_logprobs). A resumed run is exact only as far as the server repeats itself.
Left out: retries (a run that failed goes on with --resume), streaming.
"""

from __future__ import annotations

import http.client
import json
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deepwright import weights
from deepwright.model import Transformer
from deepwright.sampler import Completion, Sampling, StopReason, Watch
from deepwright.seeds import stream
from deepwright.text import Tokenizer

REQUEST = 35  # purpose of a random stream: the seed that each request gets


@dataclass(frozen=True)
class Handover:
    """`reload` is a command in which {folder} stands for the saved weights ("ssh gpu reload.sh {folder}"), run without a shell, or an http(s) URL
    that gets {"model_path": folder} (SGLang: /update_weights_from_disk). It must return once the server answers with the new weights."""

    model: Transformer
    tokenizer: Tokenizer
    folder: Path
    reload: str


def fingerprint(model: Transformer) -> list[int]:
    """The sum of each tensor's bits, read as whole numbers. (Tensor versions will not do: the fused optimizer does not count its writes.)"""
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return [
        int(t.view(words[t.element_size()]).sum(dtype=torch.int64))
        for t in model.state_dict().values()
    ]


class OutsideSampler:
    """Implements the Sampler protocol over `url` (".../v1"). Each prompt is one request with `n` samples; `parallel` of them are in flight.

    `text_of` turns ids into a prompt string for servers that take no ids. Without `handover` the server keeps its weights: for evaluation, or where
    something else moves them. Raises ValueError in one sentence when the server does not answer, answers with an error, or returns no token ids.
    """

    def __init__(
        self, url: str, model: str, handover: Handover | None = None, *, text_of: Callable[[Sequence[int]], str] | None = None,
        key: str = "", parallel: int = 64, timeout: float = 600.0,
    ) -> None:  # fmt: skip
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"the sampler's URL is {url!r}, expected http://... or https://...")
        self.url, self.model, self.handover, self.text_of = (
            url.rstrip("/"),
            model,
            handover,
            text_of,
        )
        self.headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {key}"} if key else {}
        )
        self.parallel, self.timeout = parallel, timeout
        self.watch: Watch = lambda ended, running: None  # told of each answer, in their order
        self._handed_over: list[int] = []  # fingerprint of the weights that the server has

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """[P][n] completions; the request of prompt p gets a seed that depends on (sampling.seed, p) alone."""
        self._hand_over()
        with ThreadPoolExecutor(self.parallel) as pool:
            completions = []
            for answered in pool.map(
                lambda p: self._complete(prompts[p], sampling, p), range(len(prompts))
            ):
                completions.append(answered)
                self.watch(len(answered), min(self.parallel, len(prompts) - len(completions)))
            return completions

    def _complete(self, prompt: Sequence[int], sampling: Sampling, p: int) -> list[Completion]:
        asked = {
            "model": self.model, "prompt": list(prompt) if self.text_of is None else self.text_of(prompt), "n": sampling.n,
            "max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p, "logprobs": 1,
            "stop_token_ids": list(sampling.stop_ids), "seed": int(stream(sampling.seed, REQUEST, p).random() * 2**31),
            "return_token_ids": True, "return_tokens_as_token_ids": True, "skip_special_tokens": False,
        } | ({"top_k": sampling.top_k} if sampling.top_k else {})  # fmt: skip
        answer = self._post(f"{self.url}/completions", asked)
        try:
            choices = sorted(json.loads(answer)["choices"], key=lambda choice: choice["index"])
        except (ValueError, TypeError, LookupError):
            raise ValueError(
                f"{self.url} answered {answer[:80]!r}, expected JSON with choices, each with its index"
            ) from None
        if len(choices) != sampling.n:
            raise ValueError(
                f"{self.url} returned {len(choices)} completions, expected {sampling.n}"
            )
        return [self._completion(choice, sampling) for choice in choices]

    def _completion(self, choice: dict[str, Any], sampling: Sampling) -> Completion:
        said = choice.get("logprobs") or {}
        log_probs = said.get("token_logprobs") or []
        ids = choice.get("token_ids") or [
            int(t[9:]) for t in said.get("tokens") or [] if re.fullmatch(r"token_id:\d+", t)
        ]
        if not ids or len(ids) != len(log_probs) or None in log_probs:
            counts = f"{len(ids)} token ids and {len(log_probs)} log-probabilities"
            raise ValueError(
                f"{self.url} returned {counts}, expected as many of both: text is not enough"
            )
        stopped = choice.get("finish_reason") == "stop"
        if stopped and ids[-1] not in sampling.stop_ids:
            raise ValueError(
                f"{self.url} stopped after token {ids[-1]}, expected a stop id {sampling.stop_ids} as the last token"
            )
        return Completion(
            tuple(ids),
            tuple(map(float, log_probs)),
            StopReason.STOP if stopped else StopReason.LENGTH,
        )

    def _hand_over(self) -> None:
        """Saves and reloads if the weights differ from those handed over last."""
        if self.handover is None or (seen := fingerprint(self.handover.model)) == self._handed_over:
            return
        folder, reload = str(self.handover.folder), self.handover.reload
        weights.save(self.handover.model, self.handover.tokenizer, folder)
        if reload.startswith(("http://", "https://")):
            self._post(reload, {"model_path": folder})
        else:
            self._run(reload, [word.replace("{folder}", folder) for word in shlex.split(reload)])
        self._handed_over = seen

    def _run(self, reload: str, command: list[str]) -> None:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"the reload command {reload!r} did not run: {error}") from None
        if done.returncode:
            raise ValueError(
                f"the reload command {reload!r} ended with {done.returncode}: {done.stderr.strip()[-200:]}"
            )

    def _post(self, url: str, body: dict[str, Any]) -> bytes:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, json.dumps(body).encode(), self.headers),
                timeout=self.timeout,
            ) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise ValueError(
                f"{url} answered {error.code}: {error.read(300).decode(errors='replace')}"
            ) from None
        except (
            OSError,
            http.client.HTTPException,
        ) as error:  # the latter: an answer that breaks off, an address that is none
            raise ValueError(f"{url} did not answer: {error}") from None
