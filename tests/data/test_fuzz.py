"""Damaged rows and damaged templates, by seed: documents, rows left out, or one short sentence that names file and row."""

import copy
import json
from random import Random

import pytest

from deepwright.data.conversations import read_documents
from deepwright.text import Tokenizer, metering
from tests.data.test_conversations import PLAIN, SAID, TOOL, called, marked
from tests.text import family as families
from tests.text.templates import CALLING, FAMILIES

ROWS = (
    ({"messages": SAID}, "messages"),
    (called(tools=[TOOL], chat_template_kwargs={"date_string": "1 Jan"}), "messages"),
    (called('{"at": "x"}', "", tools=json.dumps([TOOL])), "messages"),
    (marked(0, 1), "messages"),
    (marked(0, 0), "messages"),
    ({"messages": PLAIN, "loss_mask": [0, 0, 0, 1]}, "messages"),
    ({"prompt": PLAIN[:1], "completion": PLAIN[1:2]}, "messages"),
    ({"prompt": "a", "completion": "b", "weight": 1}, "messages"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, PLAIN[1]]},
        "messages",
    ),
    (
        {
            "system": "s",
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        },
        "sharegpt",
    ),
    ({"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]}, "alpaca"),
)
JUNK = (
    None, True, 0, -1, 0.5, 10**30, "", "x", " ", "\x00", "é" * 3000, [], [[]], {}, {"a": 1}, [None],
    "[1]", '{"a": 1}', "DEEP", {"role": "assistant", "content": "b"}, [{"role": "user", "content": "a"}],
)  # fmt: skip
WORDS = ("role", "content", "tool_calls", "function", "arguments", "name", "messages", "weight", "loss", "train_detail", "system", "tools",
         "chat_template_kwargs", "images", "completion", "from", "value", "reasoning", "__class__", "template", "self")  # fmt: skip


def places(value, path=()):
    """Every place in a value, as the way to it."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for key, part in members:
        yield from places(part, (*path, key))


def damaged(value, random):
    """One thing is changed, taken away, doubled, renamed or put in."""
    value = copy.deepcopy(value)
    *way, last = random.choice([path for path in places(value) if path])
    holder = value
    for key in way:
        holder = holder[key]
    action = random.randrange(5)
    if action == 0:
        del holder[last]
    elif action == 1 and isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(random.choice(holder)))
    elif action == 2 and isinstance(holder, dict):
        holder[random.choice(WORDS)] = holder.pop(last)
    elif action == 3 and isinstance(holder, dict):
        holder[random.choice(WORDS)] = copy.deepcopy(random.choice(JUNK))
    else:
        holder[last] = copy.deepcopy(random.choice(JUNK))
    return value


def torn(text, random):
    """Bytes of a text changed, cut out, put in twice."""
    data = bytearray(text.encode())
    for _ in range(random.randrange(1, 4)):
        start, length = random.randrange(len(data)), random.randrange(12)
        piece = bytes(data[start : start + length])
        data[start : start + length] = random.choice(
            (
                b"",
                piece * 2,
                bytes(random.randrange(256) for _ in piece),
                b"{%",
                b"}}",
                b'"',
                b"\\u",
            )
        )
        data = data or bytearray(b"x")
    return bytes(data)


def outcome(file, tokenizer, layout, turns="all"):
    """What came of a file. Nothing but ValueError and OSError may escape."""
    try:
        reading = read_documents(file, tokenizer, 100_000, turns, layout)
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())
        assert str(file) in text and len(text) < 800, text
        return "refused"
    assert all(int(d.targets_T.sum()) for d in reading.documents)
    assert all(len(note) < 800 for note in reading.notes())
    return "left out" if reading.untrained else "read"


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory):
    made = {}
    for name in ("smollm", "llama", "r1"):
        made[name] = families.load(tmp_path_factory.mktemp(name), name)
    base = {"qwen": "smollm", "marked": "smollm", "tagged": "smollm", "items": "smollm", "single": "llama", "added": "r1"}  # fmt: skip
    for name, family in base.items():
        made[name] = copy.copy(made[family])
        made[name].template = (FAMILIES | CALLING)[name]
    return made


def rows(seeds, folder, tokenizers):
    found = set()
    for seed in seeds:
        random = Random(seed)
        value, layout = random.choice(ROWS)
        for _ in range(random.randrange(1, 4)):
            value = damaged(value, random) if isinstance(value, dict) and value else value
        file = folder / random.choice(("rows.jsonl", "rows.json"))
        good = json.dumps(ROWS[0][0] if layout == "messages" else random.choice(ROWS)[0])
        depth = random.choice((30, 300, 700, 950, 5000))
        text = json.dumps(value, ensure_ascii=random.random() < 0.5)
        text = text.replace('"DEEP"', '{"properties": [' * depth + "]}" * depth)
        data = torn(text, random) if random.random() < 0.3 else text.encode()
        file.write_bytes(data if random.random() < 0.5 else good.encode() + b"\n" + data)
        tokenizer = tokenizers[random.choice(list(tokenizers))]
        found.add(outcome(file, tokenizer, layout, random.choice(("all", "each", "last"))))
    return found


def templates(seeds, folder, tokenizers):
    found = set()
    for seed in seeds:
        random = Random(seed)
        name = random.choice(list(FAMILIES | CALLING))
        template = torn((FAMILIES | CALLING)[name], random)
        tokenizer = copy.copy(tokenizers[name])
        tokenizer.__dict__.pop("turn_end_id", None)
        tokenizer.template = template.decode(errors="replace")
        file = folder / "rows.jsonl"
        file.write_text("\n".join(json.dumps(r) for r in (ROWS[1][0], ROWS[0][0], ROWS[6][0])))
        found.add(outcome(file, tokenizer, "messages", random.choice(("all", "each", "last"))))
    return found


def parquet(seeds, folder, tokenizers):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    file, found = folder / "rows.parquet", set()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([called({"at": "x"}), marked(1)]), file)
    whole = file.read_bytes()
    for seed in seeds:
        random = Random(seed)
        data = bytearray(whole)
        for _ in range(random.randrange(1, 20)):
            data[random.randrange(len(data))] = random.randrange(256)
        file.write_bytes(data[: random.choice((len(data), random.randrange(len(data))))])
        found.add(outcome(file, tokenizers["tagged"], "messages"))
    return found


def test_damaged_rows(tmp_path, tokenizer_of):
    assert rows(range(500), tmp_path, tokenizer_of) == {"read", "refused", "left out"}


def test_damaged_templates(tmp_path, tokenizer_of, monkeypatch):
    monkeypatch.setattr(metering, "UNITS", metering.UNITS // 10)
    assert templates(range(100), tmp_path, tokenizer_of) >= {"read", "refused"}


def test_damaged_parquet(tmp_path, tokenizer_of):
    assert "refused" in parquet(range(60), tmp_path, tokenizer_of)


@pytest.mark.slow
def test_thousands_of_each(tmp_path, tokenizer_of):
    assert rows(range(1000, 9000), tmp_path, tokenizer_of) == {"read", "refused", "left out"}
    assert templates(range(1000, 4000), tmp_path, tokenizer_of) >= {"read", "refused"}
    parquet(range(1000, 2000), tmp_path, tokenizer_of)


def test_the_fuzz_sees_what_escapes(tmp_path, tokenizer_of, monkeypatch):
    """It can fail: an error of another kind, and a sentence without end."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[0][0]))
    for error in (TypeError("x"), ValueError("x" * 900)):

        def raising(self, *args, error=error, **named):
            raise error

        monkeypatch.setattr(Tokenizer, "encode_pieces", raising)
        with pytest.raises((TypeError, AssertionError)):
            outcome(file, tokenizer_of["smollm"], "messages")
