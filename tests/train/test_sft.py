"""Fine-tuning: the loss is transformers' masked cross-entropy, documents are alone in their rows, a killed run goes on bit-exactly."""

import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepwright.data.conversations import Document
from deepwright.files import read_records
from deepwright.metrics import JsonlTracker
from deepwright.text import number_tokenizer
from deepwright.train import sft as subject
from deepwright.train.checkpoint import latest_checkpoint
from deepwright.train.objective import Terms, accumulate_gradients, validate
from deepwright.train.optimizer import OptimizerConfig
from deepwright.train.progress import Progress
from deepwright.train.sft import DocumentStream, SFTConfig, make_batch, sft
from deepwright.verify.cases import relative_error
from deepwright.verify.transformers_twin import matching, twin_of
from tests.train.tiny import CLOCK, MODEL, make_model

TOKENIZER = number_tokenizer(["a", "b", ":"], MODEL.vocab_size - 7)  # ids 0 BOS, 1 EOS
PLAIN_MODEL = replace(MODEL, num_nextn_predict_layers=0)
CONFIG = SFTConfig(
    epochs=3,
    length=16,
    batch_rows=4,
    learning_rate=1e-2,
    warmup_steps=2,
    checkpoint_every=3,
    average_decay=0.9,
)


def documents(count: int = 9, seed: int = 0) -> list[Document]:
    """Prompts of 1 to 4 tokens, completions of 1 to 9 that follow from them, then EOS; conversations of two turns in between."""
    draw, made = torch.Generator().manual_seed(seed), []
    for n in range(count):
        prompt, length = (int(torch.randint(1, top, (), generator=draw)) for top in (5, 10))
        start = int(torch.randint(3, 20, (), generator=draw))
        ids = [0, *[start] * prompt, *range(start + 1, start + 1 + length), 1]
        targets = [False] * (1 + prompt) + [True] * (length + 1)
        if n % 3 == 2:
            ids, targets = [*ids, 5, 6, 7, 1], [*targets, False, False, True, True]
        made.append(Document(torch.tensor(ids), torch.tensor(targets)))
    return made


def run(folder: Path, config: SFTConfig = CONFIG, data=None, **options):
    tracker = JsonlTracker(folder / "metrics.jsonl")
    data = documents() if data is None else data
    return sft(
        config,
        make_model(),
        TOKENIZER,
        data,
        folder,
        tracker,
        validation=documents(5, seed=1),
        **options,
    )


def curve(folder: Path) -> list[dict]:
    return [
        {name: value for name, value in record.items() if name not in CLOCK}
        for record in read_records(folder / "metrics.jsonl")
    ]


def final_bits(folder: Path) -> dict[str, bytes]:
    found = latest_checkpoint(folder)
    return {
        str(path.relative_to(found.folder)): path.read_bytes()
        for path in found.folder.rglob("*")
        if path.is_file()
    }


# --- the loss


@pytest.mark.parametrize("micro_rows", [None, 1, 2])
def test_loss_and_gradient_equal_transformers_masked_cross_entropy(micro_rows):
    pytest.importorskip("transformers")
    model = make_model(PLAIN_MODEL)
    theirs = twin_of(model)
    data = documents()
    sums = accumulate_gradients(model, make_batch(data), Terms(), micro_rows=micro_rows)
    width = max(len(document.ids_T) for document in data)
    tokens, valid, labels = torch.zeros(3, len(data), width, dtype=torch.int64)
    for row, document in enumerate(data):
        length = len(document.ids_T)
        tokens[row, :length], valid[row, :length] = document.ids_T, 1
        labels[row, :length] = torch.where(document.targets_T, document.ids_T, -100)
    labels[valid == 0] = -100
    loss = theirs(tokens, attention_mask=valid, labels=labels, use_cache=False).loss
    loss.backward()
    # fp32: a mean over some 60 targets of terms near 4, and gradients that are sums over as many: about 60 half-units, 60 * 6e-8 = 4e-6.
    assert sums.loss == pytest.approx(loss.item(), rel=4e-6)
    gradients, parameters = (
        {name: p.grad for name, p in model.named_parameters()},
        dict(theirs.named_parameters()),
    )
    compared = [
        (name, ours, parameters[name].grad)
        for name, ours in matching(model, theirs, gradients | dict(model.named_buffers()))
        if name in parameters
    ]
    assert len(compared) > 20
    for name, ours, expected in compared:
        assert relative_error(ours, expected) < 2e-5, name


@pytest.mark.invariant
def test_a_document_is_alone_in_its_row():
    """The batch's loss, MTP's included, is the sum over documents computed by themselves."""
    model, data, terms = make_model(), documents(), Terms(mtp=1.0)
    whole = accumulate_gradients(model, make_batch(data), terms)
    counts = [int(document.targets_T[1:].sum()) for document in data]
    alone = [accumulate_gradients(model, make_batch([document]), terms) for document in data]
    for name in ("loss", "mtp_loss"):
        assert getattr(whole, name) == pytest.approx(
            sum(n * getattr(s, name) for n, s in zip(counts, alone)) / sum(counts), rel=4e-6
        )
    assert (
        int(whole.loads[1].sum())
        == sum(document.length for document in data) * MODEL.num_experts_per_tok
    )


def test_prompts_are_not_trained_on():
    """By hand, from the logits: two targets, and the second 9 of the prompt is none."""
    ids = torch.tensor([0, 9, 9, 5, 1])
    first = accumulate_gradients(
        make_model(PLAIN_MODEL),
        make_batch([Document(ids, torch.tensor([False, False, False, True, True]))]),
        Terms(),
    )
    model = make_model(PLAIN_MODEL)
    log_probs = model(ids[None, :-1]).detach().log_softmax(-1)[0]
    assert first.loss == pytest.approx(float(-(log_probs[2, 5] + log_probs[3, 1]) / 2), rel=1e-5)


def test_batch_by_hand():
    short = Document(torch.tensor([0, 7, 1]), torch.tensor([False, False, True]))
    long = Document(torch.tensor([0, 8, 9, 1]), torch.tensor([False, False, True, True]))
    batch = make_batch([short, long])
    assert batch.tokens.tolist() == [[0, 8, 9, 1], [0, 7, 1, 0]]
    assert batch.weights_BS.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert batch.valid_BS.tolist() == [[True] * 3, [True, True, False]]
    assert batch.positions == 5
    assert [piece.inputs_BS.shape for piece in batch.split(1)] == [(1, 3), (1, 2)]
    assert [piece.inputs_BS.shape for piece in batch.split(None)] == [(2, 3)]


def test_short_rows_share_a_micro_batch():
    batch = make_batch(documents(40))
    pieces = list(batch.split(2))
    budget = 2 * batch.inputs_BS.shape[1]
    assert (
        sum(piece.rows for piece in pieces) == 40
        and sum(piece.positions for piece in pieces) == batch.positions
    )
    assert all(
        piece.inputs_BS.numel() <= budget and piece.valid_BS[:, -1].any() for piece in pieces
    )
    assert (
        len(pieces) < 20
        and batch.positions / sum(piece.inputs_BS.numel() for piece in pieces) > 0.85
    )


def test_validation_is_the_mean_over_targets():
    model, data = make_model(), documents(5, seed=1)
    whole = validate(model, [make_batch(data)])
    assert validate(model, [make_batch(data[:2]), make_batch(data[2:])]).loss == pytest.approx(
        whole.loss, rel=4e-6
    )
    assert whole.loss == pytest.approx(
        accumulate_gradients(model, make_batch(data), Terms()).loss, rel=4e-6
    )


# --- order, schedule, refusals


def test_every_document_once_in_each_epoch_in_another_order():
    data = documents()
    stream, read = DocumentStream(data, 3, seed=0), []
    for rows in (4, 4, 4, 4, 4, 4, 3):
        batch = stream.batch(4)
        assert batch.rows == rows
        lengths = batch.lengths_B.tolist()
        assert lengths == sorted(lengths, reverse=True)
    stream = DocumentStream(data, 3, seed=0)
    read = [stream._place(n) for n in range(27)]
    epochs = [read[:9], read[9:18], read[18:]]
    assert (
        all(sorted(epoch) == list(range(9)) for epoch in epochs)
        and len({tuple(epoch) for epoch in epochs}) == 3
    )
    assert stream.total_tokens == 3 * sum(len(document.ids_T) - 1 for document in data)


def test_learning_rate_is_a_cosine_over_all_epochs(tmp_path):
    run(tmp_path)
    total = 3 * sum(document.length for document in documents())
    before = 0
    records = curve(tmp_path)
    assert len(records) == math.ceil(27 / 4) and records[-1]["tokens"] == total
    for record in records:
        cosine = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * before / total))
        assert record["learning_rate"] == pytest.approx(
            1e-2 * min(1, record["step"] / 2) * cosine, rel=1e-6
        )
        before = record["tokens"]
    assert {"validation_loss", "validation_loss_ema"} <= records[-1].keys() and records[-1][
        "mtp_weight"
    ] == 0.1


def test_it_learns_to_answer_and_to_stop(tmp_path):
    ids = torch.tensor([0, 9, 10, 11, 1])
    document = Document(ids, torch.tensor([False, False, True, True, True]))
    model = make_model()
    config = replace(
        CONFIG,
        epochs=120,
        batch_rows=2,
        optimizer=OptimizerConfig(weight_decay=0.0),
        checkpoint_every=1000,
    )
    sft(
        config, model, TOKENIZER, [document, document], tmp_path, JsonlTracker(tmp_path / "m.jsonl")
    )
    said = [0, 9]
    while said[-1] != 1 and len(said) < 9:
        said.append(int(model(torch.tensor([said]))[0, -1].argmax()))
    assert said == ids.tolist()


def test_no_end_among_the_targets_is_refused(tmp_path):
    ids = torch.tensor([0, 9, 10, 1])
    # what masking by token value does where padding is EOS
    masked = Document(ids, torch.tensor([False, False, True, False]))
    with pytest.raises(
        ValueError,
        match=r"document 9 has none of the end tokens \['<｜end▁of▁sentence｜>'\] among its targets",
    ):
        run(tmp_path, data=[*documents(), masked])
    assert not list(tmp_path.glob("checkpoints"))


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch_rows": 0},
        {"length": 0},
        {"micro_rows": 0},
        {"final_ratio": 2.0},
        {"learning_rate": -1.0},
    ],
)
def test_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SFTConfig(**bad)


def test_describe_counts():
    said = subject.describe(documents(), replace(CONFIG, micro_rows=1))
    tokens = sum(document.length for document in documents())
    assert (
        said.startswith(f"9 documents, {tokens} tokens, ")
        and "an epoch takes 3 steps of 4 documents" in said
    )


# --- resume


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder)
    return folder


def kill_at(folder: Path, step: int) -> bool:
    """Trains in a child process and sends it SIGKILL once it has written down `step`. Whether it was still running then."""
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("w") as nowhere:
            run(
                folder,
                progress=Progress(1, "sft", stream=nowhere),
                callback=lambda *_: time.sleep(0.02),
            )
        os._exit(0)
    metrics = folder / "metrics.jsonl"
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return False


@pytest.mark.invariant
def test_killed_and_resumed_is_bit_equal(unbroken, tmp_path):
    assert torch.get_num_threads() == 1, "the child of a fork cannot use the threads of its parent"
    assert sum(kill_at(tmp_path, step) for step in (2, 4, 6)) >= 2
    run(tmp_path)
    assert curve(tmp_path) == curve(unbroken) and final_bits(tmp_path) == final_bits(unbroken)


@pytest.mark.invariant
def test_interrupted_inside_an_epoch_is_bit_equal(unbroken, tmp_path):
    with pytest.raises(SystemExit):
        run(
            tmp_path,
            callback=lambda step, model: os.kill(os.getpid(), signal.SIGINT) if step == 4 else None,
        )
    assert latest_checkpoint(tmp_path).step == 4
    run(tmp_path)
    assert curve(tmp_path) == curve(unbroken) and final_bits(tmp_path) == final_bits(unbroken)


def test_other_documents_and_settings_are_refused(unbroken):
    with pytest.raises(ValueError, match=r"schedule\.learning_rate"):
        run(unbroken, replace(CONFIG, learning_rate=1.0))
    changed = documents()
    changed[3] = Document(changed[3].ids_T.clone(), changed[3].targets_T)
    changed[3].ids_T[1] += 1
    with pytest.raises(ValueError, match="other documents or another order"):
        run(unbroken, data=changed)
    with pytest.raises(ValueError, match="other documents or another order"):
        run(unbroken, seed=1)
