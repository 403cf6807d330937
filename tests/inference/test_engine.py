"""The engine against one-at-a-time generation, against full forwards, and against what users do wrong."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from deepwright.inference.engine import Engine
from deepwright.inference.request import Finished
from deepwright.sampler import Completion, Sampling, StopReason
from deepwright.train.optimizer import Optimizer, OptimizerConfig
from tests.inference.tiny import CONTEXT, VOCAB, full_log_probs, same, tiny_dense, tiny_model

# fp32 rounds at 2**-24 = 6e-8 of a value. A log-probability here is a difference of logits of size up to about 30, each the end of
# ~10 matrix products of inner width <= 48 in another order (batch size, absorbed or expanded form): 30 * 6e-8 * sqrt(10 * 48) = 4e-5.
TOLERANCE = 1e-4
GREEDY, WARM = (
    Sampling(max_tokens=12, temperature=0.0),
    Sampling(max_tokens=12, temperature=0.6, seed=3),
)


@pytest.fixture(scope="module", params=[tiny_model, tiny_dense], ids=["latent", "grouped"])
def model(request):
    torch.set_num_threads(1)
    return request.param()


def prompts_of(seed: int, count: int, longest: int = 40) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(VOCAB) for _ in range(draw.randint(1, longest))] for _ in range(count)]


def alone(model, prompt, sampling: Sampling, prompt_index: int, sample: int) -> Completion:
    """Sample number `sample`, generated row by row in an engine of its own."""
    engine = Engine(model, max_batch=1)
    number = engine.add(prompt, sampling, prompt_index)
    ended: list[Finished] = []
    while engine.has_work:
        ended += engine.step()
    return next(f.completion for f in ended if f.request == number and f.sample == sample)


@pytest.mark.invariant
@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_batched_equals_alone_and_shared_equals_separate(model, sampling):
    prompts = prompts_of(1, 9)
    prompts.append(prompts[0])  # an equal prompt is computed once, but samples from its own stream
    grouped = Engine(model).sample(
        prompts, Sampling(**{**vars(sampling), "n": 4, "stop_ids": (7,)})
    )
    one = Sampling(**{**vars(sampling), "n": 4, "stop_ids": (7,)})
    for index, (prompt, group) in enumerate(zip(prompts, grouped)):
        for sample in (0, 3):
            assert same(group[sample], alone(model, prompt, one, index, sample), TOLERANCE)
        single = alone(model, prompt, Sampling(**{**vars(one), "n": 1}), index, 0)
        assert same(group[0], single, TOLERANCE), (
            "a prompt of its own gives what the shared one gave"
        )
    if sampling.temperature:
        assert grouped[0] != grouped[-1], "equal prompts must not share random numbers"


@pytest.mark.invariant
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_are_those_of_a_full_forward(model, temperature):
    prompts = prompts_of(2, 6)
    groups = Engine(model, block=4, prefill_chunk=7).sample(
        prompts, Sampling(max_tokens=30, temperature=temperature, n=2, top_k=5)
    )
    for prompt, group in zip(prompts, groups):
        for completion in group:
            expected = full_log_probs(model, prompt, completion.token_ids, temperature)
            error = (torch.tensor(completion.log_probs) - expected).abs().max()
            assert error <= TOLERANCE / temperature, f"{error:.2e}"


def test_greedy_log_probs_are_at_temperature_one(model):
    prompt = [3, 1, 4]
    (completion,) = Engine(model).sample([prompt], GREEDY)[0]
    expected = full_log_probs(model, prompt, completion.token_ids, 1.0)
    assert torch.allclose(torch.tensor(completion.log_probs).double(), expected, atol=TOLERANCE)


def test_a_group_prefills_its_prompt_once(model):
    widths = []

    class Counting(torch.nn.Module):
        config, compute_dtype, head_weight = model.config, model.compute_dtype, model.head_weight

        def hidden(self, tokens_BS, positions_BS, **kwargs):
            widths.append(tuple(tokens_BS.shape))
            return model.hidden(tokens_BS, positions_BS, **kwargs)

    Engine(Counting()).sample([[5] * 20] * 3, Sampling(max_tokens=3, n=8))
    assert widths == [(1, 20), (24, 1), (24, 1)]


def test_stop_ids_and_length(model):
    free = Engine(model).sample([[1, 2, 3]], Sampling(max_tokens=20, temperature=0.0))[0][0]
    assert free.stop is StopReason.LENGTH and len(free.token_ids) == 20
    first, later = free.token_ids[0], next(t for t in free.token_ids if t != free.token_ids[0])
    # several EOS ids; the first ones never come
    stops = tuple(t for t in range(VOCAB) if t not in free.token_ids)[:3]
    cut = Engine(model).sample(
        [[1, 2, 3]], Sampling(max_tokens=20, temperature=0.0, stop_ids=(*stops, later))
    )[0][0]
    assert cut.stop is StopReason.STOP
    assert cut.token_ids == free.token_ids[: free.token_ids.index(later) + 1]
    at_once = Engine(model).sample(
        [[1, 2, 3]], Sampling(max_tokens=20, temperature=0.0, stop_ids=(first,))
    )[0][0]
    assert at_once.token_ids == (first,) and at_once.stop is StopReason.STOP
    last = Engine(model).sample(
        [[1, 2, 3]], Sampling(max_tokens=1, temperature=0.0, stop_ids=(first,))
    )[0][0]
    assert last.stop is StopReason.STOP, "a stop token at the length limit is a stop"


def test_context_cuts_the_completion(model):
    prompt = [2] * (CONTEXT - 5)
    completion = Engine(model).sample([prompt], Sampling(max_tokens=50))[0][0]
    assert len(completion.token_ids) == 5 and completion.stop is StopReason.LENGTH


def test_changed_weights_change_outputs():
    model = tiny_model(seed=5)
    engine, prompts = Engine(model), prompts_of(3, 3)
    before = engine.sample(prompts, GREEDY)
    assert engine.sample(prompts, GREEDY) == before
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    after = engine.sample(prompts, GREEDY)
    assert after != before
    assert after == Engine(model).sample(prompts, GREEDY), "something of the old weights survived"


def test_weights_changed_under_running_requests():
    """Every token sampled after the change comes from a cache of the new weights."""
    model = tiny_model(seed=6)
    engine, prompt = Engine(model, block=4), [9, 8, 7, 6, 5]
    engine.add(prompt, Sampling(max_tokens=10))
    for _ in range(4):
        engine.step()
    with torch.no_grad():
        model.layers[0].attention.kv_a.weight.mul_(-1)
    ended = []
    while engine.has_work:
        ended += engine.step()
    completion = ended[0].completion
    expected = full_log_probs(model, prompt, completion.token_ids, 1.0)
    assert torch.allclose(
        torch.tensor(completion.log_probs[4:]).double(), expected[4:], atol=TOLERANCE
    )
    assert not torch.allclose(
        torch.tensor(completion.log_probs[:4]).double(), expected[:4], atol=TOLERANCE
    )


def test_training_works_after_sampling(model):
    """Nothing the engine made under inference mode may stay in the model."""
    Engine(model).sample([[1, 2]], GREEDY)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "empty"),
        ([1, VOCAB], {}, f"token id {VOCAB}"),
        ([1, -1], {}, "token id -1"),
        ([1] * CONTEXT, {}, f"{CONTEXT} tokens, the context holds {CONTEXT}"),
        ([1] * 30, {"cache_tokens": 32}, "30 tokens .* more than the cache holds .32 tokens"),
    ],
)
def test_bad_prompts_are_refused_in_one_sentence(model, prompt, options, message):
    engine = Engine(model, **options)
    with pytest.raises(ValueError, match=message):
        engine.sample([[1, 2], prompt], GREEDY)
    assert not engine.has_work, "the good prompt must not stay behind"
    assert len(engine.sample([[1, 2]], GREEDY)) == 1


def test_bad_options(model):
    for option in ("max_batch", "block", "prefill_chunk", "cache_tokens"):
        with pytest.raises(ValueError, match=option):
            Engine(model, **{option: 0})
    engine = Engine(model)
    engine.add([1], GREEDY)
    with pytest.raises(ValueError, match="in flight"):
        engine.sample([[1]], GREEDY)


def test_generate_text(model):
    class Letters:
        bos_id, stop_ids = 0, (1,)

        def encode(self, text):
            return [ord(c) % VOCAB for c in text]

        def decode(self, ids):
            return " ".join(map(str, ids))

    with pytest.raises(ValueError, match="needs a tokenizer"):
        Engine(model).generate("a", GREEDY)
    engine = Engine(model, Letters())
    text = engine.generate(["hi", "you"], GREEDY)
    ids = engine.generate(
        [[0, ord("h") % VOCAB, ord("i") % VOCAB], [0, *Letters().encode("you")]], GREEDY
    )
    assert text == ids and len(engine.generate("hi", Sampling(max_tokens=2, n=3))) == 3
    everything = tuple(range(VOCAB))
    assert len(engine.generate("hi", Sampling(max_tokens=9, stop_ids=everything))[0].token_ids) == 1
    assert [one.text for one in text] == [" ".join(map(str, one.token_ids)) for one in text]
    assert Engine(model).generate([[4, 5]], GREEDY)[0].text is None
    assert len(engine.generate("hi")[0].token_ids) <= Sampling().max_tokens


def test_abort_keeps_what_was_produced(model):
    engine = Engine(model)
    whole = Engine(model).sample([[4, 5]], GREEDY)[0][0]
    number = engine.add([4, 5], GREEDY)
    for _ in range(3):
        assert engine.step() == []
    (ended,) = engine.abort(number)
    assert (
        ended.completion.stop is StopReason.ABORT
        and ended.completion.token_ids == whole.token_ids[:3]
    )
    assert not engine.has_work and engine.abort(number) == []


def test_an_interruption_inside_a_forward_leaves_an_engine_that_can_be_used(model, monkeypatch):
    """When a row stands at the border of a block it has been given the next one already: that goes back as well."""
    engine, prompts, forward = Engine(model, block=4), [[1, 2, 3], [4, 5]], model.hidden
    whole = Engine(model, block=4).sample(prompts, GREEDY)
    for last in range(1, 8):
        calls = iter(range(last))

        def hidden(*args, calls=calls, **more):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return forward(*args, **more)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(model, "hidden", hidden)
            engine.sample(prompts, GREEDY)
        assert engine.sample(prompts, GREEDY) == whole


def test_a_small_call_after_a_large_one(model):
    """Tables of the large call point at blocks that the small call's pool does not have; nothing may read them."""
    engine = Engine(model, block=2, max_batch=64)
    engine.sample([[1, 2, 3]] * 40, Sampling(max_tokens=60, n=1, seed=1))
    # the short row's table is read as far as the long one's reaches
    long_and_short = [list(range(1, 41)), [4]]
    numbers = [
        engine.add(prompt, Sampling(max_tokens=20, seed=2), index)
        for index, prompt in enumerate(long_and_short)
    ]
    lengths = {}
    while engine.has_work:
        lengths |= {ended.request: len(ended.completion.token_ids) for ended in engine.step()}
    assert lengths == dict.fromkeys(numbers, 20)


def test_weights_cast_for_decoding_follow_the_weights(model):
    """fp32 masters, blocks in bf16: the casts are kept over a call, belong to the weights of that call, and are given back after it."""
    prompts = prompts_of(5, 3)
    with model.computing(torch.bfloat16):
        engine = Engine(model)
        first = engine.sample(prompts, GREEDY)
        assert not engine._casts
        number = engine.add(prompts[0], GREEDY)
        engine.step()
        assert engine._casts, "nothing was cast"
        engine.abort(number)
        assert not engine._casts
        weight = model.layers[0].ffn.down.weight
        with torch.no_grad():
            weight.mul_(-1)
        try:
            assert engine.sample(prompts, GREEDY) == Engine(model).sample(prompts, GREEDY) != first
        finally:
            with torch.no_grad():
                weight.mul_(-1)


def test_weights_that_an_optimizer_has_moved_start_the_cache_over(model):
    """Also in the middle of a request: the fused AdamW counts up no version by itself."""
    engine, twin = Engine(model), copy.deepcopy(model)
    optimizer = Optimizer(model, OptimizerConfig())
    engine.add([1, 2, 3], Sampling(max_tokens=6, temperature=0.0))
    engine.step()
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    try:
        optimizer.step(0.05, 1)
        ended = []
        while engine.has_work:
            ended += engine.step()
        head = ended[0].completion.token_ids[:1]  # sampled before the step
        rest = Engine(model).sample([[1, 2, 3, *head]], Sampling(max_tokens=5, temperature=0.0))[0][
            0
        ]
        assert ended[0].completion.token_ids[1:] == rest.token_ids
    finally:
        model.load_state_dict(twin.state_dict())
        model.zero_grad()
