"""The engine: prompts in, sampled tokens out, on the trainer's own parameters (no copy, no second model code).

    step = fork finished prefills into rows, then prefill a chunk or decode one token for every row.

The cache is dropped whenever nothing runs, and started over when the weights change in between, so no entry outlives the weights that
made it. Left out for now: prefix reuse between calls, speculative decoding (draft.py measures what it would gain).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Seq

import torch
from torch import Tensor, nn

from deepwright import numerics
from deepwright.inference.paged_cache import BlockPool, PagedView
from deepwright.inference.request import Finished, Prefill, Request, Sequence
from deepwright.inference.rows import Rows
from deepwright.inference.sampling import draw
from deepwright.inference.scheduler import Scheduler
from deepwright.model.finite import source
from deepwright.refusals import expect, quoted
from deepwright.sampler import Completion, NotFinite, Sampling, StopReason, Watch

USUAL = Sampling()


class Engine:
    """Continuous batching for one model. Implements the Sampler protocol.

    max_batch: rows decoded together. cache_tokens: size of the cache in tokens (None: grows as needed); when a fixed cache runs out,
    the youngest sequences are preempted and computed again later. block: tokens per cache block. prefill_chunk: prompt tokens
    (with padding) computed in one forward.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer=None,
        *,
        max_batch: int = 512,
        cache_tokens: int | None = None,
        block: int = 16,
        prefill_chunk: int = 2048,
    ):
        for name, value in (
            ("max_batch", max_batch),
            ("block", block),
            ("prefill_chunk", prefill_chunk),
            ("cache_tokens", cache_tokens),
        ):
            expect(value is None or value >= 1, name, value, "at least 1")
        self.model, self.tokenizer, self.cache_tokens = model, tokenizer, cache_tokens
        config, head = model.config, model.head_weight
        self.context, self.vocab = config.max_position_embeddings, config.vocab_size
        self.pool = BlockPool(
            config.num_hidden_layers,
            config.cache_width,
            block,
            cache_tokens,
            model.compute_dtype,
            head.device,
        )
        self.rows = Rows(max_batch, head.device)
        self.scheduler = Scheduler(self.pool, self.rows, prefill_chunk)
        self.interleave = True  # a decode step between two prefill chunks, so that running rows do not wait for a long prompt
        self.watch: Watch = lambda ended, running: None  # told after every step of `sample`
        self._requests = 0
        self._prefilled_last = False
        self._weights: list[nn.Parameter] = []
        self._casts: numerics.Casts = {}
        self._versions = 0

    # -- whole calls

    def sample(self, prompts: Seq[Seq[int]], sampling: Sampling) -> list[list[Completion]]:
        """[P][n] completions; a prompt given several times is computed once. Prompt p, sample j draws from (seed, p, j)."""
        if self.has_work:
            raise ValueError(
                "sample was called while requests are in flight: finish or abort them, or use a second Engine"
            )
        # all checked before any runs
        requests = [self._request(prompt, sampling, index) for index, prompt in enumerate(prompts)]
        # similar lengths share a chunk with little padding
        for request in sorted(requests, key=lambda r: len(r.prompt)):
            self.scheduler.add(request)
        index_of = {request.number: index for index, request in enumerate(requests)}
        completions: list[list[Completion]] = [[None] * sampling.n for _ in requests]
        self.interleave = False
        try:
            while self.has_work:
                finished = self.step()
                for ended in finished:
                    completions[index_of[ended.request]][ended.sample] = ended.completion
                self.watch(len(finished), len(self.rows))
        finally:  # Ctrl-C in the middle must leave an engine that can be used again
            self.interleave = True
            for request in requests:
                self.abort(request.number)
        return completions

    def generate(
        self, prompts: str | Seq[str] | Seq[Seq[int]], sampling: Sampling = USUAL
    ) -> list[Completion]:
        """Completions of texts or token ids, prompt by prompt (n for each). A text gets BOS in front, once, if the model has one; with a
        tokenizer, completions have their text, and where no stop ids are asked, its end tokens stop."""
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if self.tokenizer is None and any(isinstance(text, str) for text in texts):
            raise ValueError("a text prompt needs a tokenizer: Engine(model, tokenizer)")
        if self.tokenizer is not None and not sampling.stop_ids:
            sampling = dataclasses.replace(sampling, stop_ids=self.tokenizer.stop_ids)
        ids = [self._encode(text) if isinstance(text, str) else text for text in texts]
        found = [completion for group in self.sample(ids, sampling) for completion in group]
        if self.tokenizer is None:
            return found
        decode = self.tokenizer.decode
        return [dataclasses.replace(one, text=decode(one.token_ids)) for one in found]

    def _encode(self, text: str) -> list[int]:
        ids, bos = list(self.tokenizer.encode(text)), self.tokenizer.bos_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    # -- continuous use

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, prompt: Seq[int], sampling: Sampling, prompt_index: int = 0) -> int:
        """Queues one request and returns its number. Its samples draw from the streams (seed, prompt_index, sample)."""
        request = self._request(prompt, sampling, prompt_index)
        self.scheduler.add(request)
        return request.number

    @torch.inference_mode()
    def abort(self, number: int) -> list[Finished]:
        """Ends a request at once; returns what its unfinished samples had produced. An unknown or ended number is no error."""
        sequences = self.scheduler.remove(number)
        if sequences and not self.has_work:
            self._rest()
        return [self._finish(s, s.token_ids, s.log_probs, StopReason.ABORT) for s in sequences]

    @torch.inference_mode()
    def step(self) -> list[Finished]:
        """One forward; returns the samples that ended in it."""
        self._check_weights()
        with numerics.keep_casts(self._casts):
            finished = self._forward()
        if not self.has_work:
            self._rest()
        return finished

    def _forward(self) -> list[Finished]:
        finished = self._fork()
        chunk = (
            []
            if self.interleave and self._prefilled_last and self.rows.sequences
            else self.scheduler.next_chunk()
        )
        self._prefilled_last = bool(chunk)
        if chunk:
            self._prefill(chunk)
            return finished + self._fork()
        if self.rows.sequences:
            return finished + self._decode()
        assert finished or not self.has_work, "the scheduler is stuck"
        return finished

    def _rest(self) -> None:
        """Gives memory back that a trainer may need."""
        self.pool.drop()
        self._casts.clear()

    def _request(self, prompt: Seq[int], sampling: Sampling, prompt_index: int) -> Request:
        if not len(prompt):
            raise ValueError("the prompt is empty, expected at least one token (BOS, for instance)")
        for token in prompt:
            if not hasattr(token, "__index__") or not 0 <= token < self.vocab:
                expected = f"expected 0 to {self.vocab - 1}"
                raise ValueError(f"token id {quoted(token)} in the prompt, {expected}")
        prompt = tuple(int(token) for token in prompt)
        if len(prompt) >= self.context:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens, the context holds {self.context}: no room for a completion"
            )
        limit = min(sampling.max_tokens, self.context - len(prompt))
        if (
            not self.pool.growable
            and self.pool.blocks_for(len(prompt) + limit - 1) > self.pool.limit
        ):
            raise ValueError(
                f"prompt of {len(prompt)} tokens + completion of up to {limit}: more than the cache holds"
                f" ({self.cache_tokens} tokens, {self.pool.limit} whole blocks of {self.pool.block})"
            )
        self._requests += 1
        return Request(self._requests, prompt, sampling, prompt_index, limit)

    # -- the forwards

    def _check_weights(self) -> None:
        """Starts the cache over if a parameter was written to since the last step (an optimizer step, load_state_dict; not `.data`)."""
        if not self.rows.sequences and not self.pool.total:  # idle until now
            self._weights, self._versions = list(self.model.parameters()), -1
            self.pool.dtype = self.model.compute_dtype
        versions = sum(weight._version for weight in self._weights)
        if versions != self._versions:
            self._casts.clear()
            if self._versions >= 0:
                self.scheduler.restart()
        self._versions = versions

    def _prefill(self, chunk: list[tuple[Prefill, int]]) -> None:
        """Brings a padded batch [B, S] of prompt pieces into the cache."""
        block, device = self.pool.block, self.rows.device
        rows, longest = len(chunk), max(tokens for _, tokens in chunk)
        ends = [prefill.done + tokens for prefill, tokens in chunk]
        widest = self.pool.blocks_for(max(ends))
        tokens_BS = torch.tensor(
            [[*p.tokens[p.done : end], *[0] * (longest - n)] for (p, n), end in zip(chunk, ends)],
            device=device,
        )
        table_BM = torch.tensor(
            [[*p.blocks[:widest], *[0] * (widest - len(p.blocks))] for p, _ in chunk], device=device
        )
        start_B, count_B, end_B = (
            torch.tensor(x, device=device)[:, None]
            for x in ([p.done for p, _ in chunk], [n for _, n in chunk], ends)
        )
        step_S = torch.arange(longest, device=device)
        valid_BS = step_S < count_B
        # padding repeats the last position: always inside the tables
        positions_BS = torch.minimum(start_B + step_S, end_B - 1)
        slots_BS = torch.where(
            valid_BS, table_BM.gather(1, positions_BS // block) * block + positions_BS % block, 0
        )
        view = PagedView(
            self.pool, slots_BS.reshape(-1), table_BM, fresh=all(p.done == 0 for p, _ in chunk)
        )
        hidden_BSD = self.model.hidden(tokens_BS, positions_BS, cache=view, valid_BS=valid_BS)
        last_BD = hidden_BSD[torch.arange(rows, device=device), count_B[:, 0] - 1]
        for (prefill, tokens), hidden_D in zip(chunk, last_BD):
            self.scheduler.advance(prefill, tokens, hidden_D)

    def _fork(self) -> list[Finished]:
        sequences, hidden = self.scheduler.fork()
        if not sequences:
            return []
        # one row of logits per prefill, then one copy per sequence
        first_of = {id(hidden_D): hidden_D for hidden_D in hidden}
        place = {key: index for index, key in enumerate(first_of)}
        logits_PV = self._logits(torch.stack(list(first_of.values())))
        logits_RV = logits_PV[
            torch.tensor([place[id(hidden_D)] for hidden_D in hidden], device=logits_PV.device)
        ]
        return self._emit(len(self.rows) - len(sequences), logits_RV)

    def _decode(self) -> list[Finished]:
        slots_B = self.scheduler.make_room()
        length_B = self.rows.view("length")
        blocks = self.pool.blocks_for(int(length_B.max()) + 1)
        view = PagedView(self.pool, slots_B, self.rows.view("table")[:, :blocks])
        hidden_B1D = self.model.hidden(
            self.rows.view("last")[:, None], length_B[:, None], cache=view
        )
        length_B += 1
        return self._emit(0, self._logits(hidden_B1D[:, 0]))

    def _logits(self, hidden_RD: Tensor) -> Tensor:
        return numerics.linear(hidden_RD, self.model.head_weight).float()

    def _emit(self, first: int, logits_RV: Tensor) -> list[Finished]:
        """Samples one token for rows `first`.. and takes out those that have ended."""
        temperature, top_k_R, top_p_R = self.rows.sampling_rules(first)
        greedy = not isinstance(temperature, Tensor) and temperature == 0
        u_R = None if greedy else self.rows.uniform(first)
        try:
            ids_R, log_probs_R = draw(logits_RV, u_R, temperature, top_k_R, top_p_R)
        except NotFinite as error:
            raise NotFinite(f"{error}: {self._blame(first + error.row)}") from None
        ended = self.rows.append(first, ids_R, log_probs_R)
        finished = []
        for row in ended:
            sequence = self.rows.sequences[row]
            token_ids, log_probs = self.rows.read(row)
            stopped = token_ids[-1] in sequence.request.sampling.stop_ids
            finished.append(
                self._finish(
                    sequence,
                    token_ids,
                    log_probs,
                    StopReason.STOP if stopped else StopReason.LENGTH,
                )
            )
        self.scheduler.leave(ended)
        return finished

    def _blame(self, row: int) -> str:
        """What makes the next logits of a row not finite."""
        tokens = (*self.rows.sequences[row].request.prompt, *self.rows.read(row)[0])
        found = source(self.model, torch.tensor([tokens], device=self.rows.device))
        return found or "of finite states the head makes them"

    @staticmethod
    def _finish(
        sequence: Sequence, token_ids: list[int], log_probs: list[float], stop: StopReason
    ) -> Finished:
        return Finished(
            sequence.request.number,
            sequence.sample,
            Completion(tuple(token_ids), tuple(log_probs), stop),
        )
