"""Conversations as documents: ids are those of the model's use, targets are what the assistant says with its end, anything else is refused."""

import json

import pytest

from deepwright.data.conversations import documents_of, read_documents
from deepwright.tasks import make_task
from deepwright.text import Tokenizer, number_tokenizer
from tests.text import family as families
from tests.text.templates import FAMILIES

SAID = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "reasoning_content": "first"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d", "reasoning_content": "second"},
]
PLAIN = [
    {name: text for name, text in message.items() if name != "reasoning_content"}
    for message in SAID
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    return {name: families.load(tmp_path_factory.mktemp(name), name) for name in FAMILIES}


def targets(tokenizer: Tokenizer, document) -> list[str]:
    """The trained stretches as text."""
    text, out = "", []
    for index, target in [
        *zip(document.ids_T.tolist(), document.targets_T.tolist(), strict=True),
        (None, False),
    ]:
        if target:
            text += tokenizer.decode([index], specials=True)
        elif text:
            out, text = [*out, text], ""
    return out


def texts(tokenizer: Tokenizer, document) -> str:
    return tokenizer.decode(document.ids_T.tolist(), specials=True)


THOUGHT = "<think>\n{}\n</think>\n\n"


@pytest.mark.parametrize(
    "name, messages, turns, expected",
    [
        ("smollm", PLAIN, "all", [["b<|im_end|>", "d<|im_end|>"]]),
        ("llama", PLAIN, "all", [["b<|eot_id|>", "d<|eot_id|>"]]),
        ("r1", PLAIN, "last", None),  # the prompt opens a thought that the turn does not have
        ("marked", PLAIN, "all", [["b<|im_end|>", "d<|im_end|>"]]),
        ("marked", PLAIN, "last", [["d<|im_end|>"]]),
        (
            "smollm",
            SAID,
            "all",
            [[THOUGHT.format("first") + "b<|im_end|>", THOUGHT.format("second") + "d<|im_end|>"]],
        ),
        ("qwen", SAID, "all", None),  # an earlier thought disappears when a question follows
        (
            "qwen",
            SAID,
            "each",
            [[THOUGHT.format("first") + "b<|im_end|>"], [THOUGHT.format("second") + "d<|im_end|>"]],
        ),
        ("qwen", SAID, "last", [[THOUGHT.format("second") + "d<|im_end|>"]]),
        ("qwen", SAID[:2], "all", [[THOUGHT.format("first") + "b<|im_end|>"]]),
        ("r1", SAID, "each", None),
    ],
)
def test_what_is_trained_on(tokenizers, name, messages, turns, expected):
    tokenizer = tokenizers[name]
    if expected is None:
        with pytest.raises(
            ValueError, match="does not keep the prompt|changes the turn when others follow"
        ):
            documents_of({"messages": messages}, tokenizer, turns)
    else:
        documents = documents_of({"messages": messages}, tokenizer, turns)
        assert [targets(tokenizer, document) for document in documents] == expected


@pytest.mark.parametrize("name", ["smollm", "llama", "qwen", "marked"])
def test_ids_are_those_of_the_rendered_text_and_of_each_prompt(tokenizers, name):
    tokenizer = tokenizers[name]
    for end, document in zip(
        (2, 4), documents_of({"messages": PLAIN}, tokenizer, "each"), strict=True
    ):
        prompt = tokenizer.encode(tokenizer.render(PLAIN[: end - 1]))
        whole = tokenizer.encode(tokenizer.render(PLAIN[:end], False))
        ids = document.ids_T.tolist()
        assert ids == whole[: len(ids)] and ids[: len(prompt)] == prompt
        assert document.targets_T.tolist() == [False] * len(prompt) + [True] * (
            len(ids) - len(prompt)
        )
        assert (
            ids[-1] == tokenizer.eos_id and len(whole) - len(ids) <= 1
        )  # the line break after the turn is left out


def test_a_token_never_reaches_from_the_prompt_into_the_turn(tokenizers):
    messages = [PLAIN[0], {"role": "assistant", "content": "\nx"}]
    [document] = documents_of({"messages": messages}, tokenizers["smollm"])
    prompt = tokenizers["smollm"].encode(tokenizers["smollm"].render(messages[:1]))
    assert document.ids_T.tolist()[: len(prompt)] == prompt and targets(
        tokenizers["smollm"], document
    ) == ["\nx<|im_end|>"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_completion_follows_its_prompt_untouched(tokenizers, name):
    tokenizer, completion = tokenizers[name], "why</think>\n\nb"
    [document] = documents_of({"prompt": "a", "completion": completion}, tokenizer)
    assert targets(tokenizer, document) == [completion + tokenizer.eos]
    assert texts(tokenizer, document) == tokenizer.render(PLAIN[:1]) + completion + tokenizer.eos
    [again] = documents_of(
        {"prompt": PLAIN[:1], "completion": completion + tokenizer.eos}, tokenizer
    )
    assert again.ids_T.tolist() == document.ids_T.tolist()
    assert document.ids_T.tolist().count(tokenizer.bos_id) == (
        2 + (name == "smollm") if name == "smollm" else int(name in ("llama", "r1"))
    )


def test_messages_as_completion_train_only_its_turns(tokenizers):
    [document] = documents_of({"prompt": PLAIN[:3], "completion": PLAIN[3:]}, tokenizers["smollm"])
    assert targets(tokenizers["smollm"], document) == ["d<|im_end|>"]


def test_tools_and_other_words_reach_the_template(tokenizers):
    row = {
        "messages": PLAIN,
        "tools": [{"name": "hammer"}],
        "chat_template_kwargs": {"date_string": "1 Jan"},
    }
    text = texts(tokenizers["llama"], documents_of(row, tokenizers["llama"])[0])
    assert "hammer" in text and "Today: 1 Jan" in text


def test_the_small_vocabulary_of_words():
    tokenizer = number_tokenizer(make_task("countdown").tokenizer_words(), 99)
    [document] = documents_of(
        {
            "prompt": "nums 3 4 make 7 :",
            "completion": "<think> 3 + 4 = 7 </think> <answer> 3 + 4 </answer>",
        },
        tokenizer,
    )
    assert document.ids_T[0] == tokenizer.bos_id and document.ids_T[-1] == tokenizer.eos_id
    assert int(document.targets_T.sum()) == 13 and len(document.ids_T) == 1 + 6 + 13


def test_a_template_that_ends_with_a_token_the_model_does_not_stop_at(tokenizers, tmp_path):
    folder = families.write(tmp_path, "qwen")
    for name, key in (
        ("tokenizer_config.json", "eos_token"),
        ("generation_config.json", "eos_token_id"),
    ):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(
            json.dumps(values | {key: "<|endoftext|>" if key == "eos_token" else 0})
        )
    base = Tokenizer.load(folder)  # a base model: it ends documents, not turns
    with pytest.raises(
        ValueError,
        match=r"b<\|im_end\|>\\n', without one of the model's end tokens \['<\|endoftext\|>'\]",
    ):
        documents_of({"messages": PLAIN[:2]}, base)
    taught = base.also_stopping_at("<|im_end|>")
    assert targets(taught, documents_of({"messages": PLAIN[:2]}, taught)[0]) == [
        "<think>\n\n</think>\n\nb<|im_end|>"
    ]
    assert (base.turn_end_id, taught.turn_end_id, taught.eos_id) == (
        base.eos_id,
        taught.encode("<|im_end|>")[0],
        base.eos_id,
    )
    taught.save(tmp_path / "taught")
    assert Tokenizer.load(tmp_path / "taught").stop_ids == taught.stop_ids
    with pytest.raises(ValueError, match="cannot be an end token"):
        base.also_stopping_at("<nothing>")


def test_what_the_template_drops_is_said(tokenizers, tmp_path):
    folder = families.write(tmp_path, "r1")
    template = FAMILIES["r1"].replace(
        "<｜Assistant｜><think>\\n", "<｜Assistant｜>"
    )  # R1's first release: the prompt opens no thought
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="message 1: 'first' is lost"):
        documents_of({"messages": SAID[:2]}, Tokenizer.load(folder))
    inline = [SAID[0], {"role": "assistant", "content": "why</think>b"}]
    with pytest.raises(ValueError, match="message 1: 'why' is lost"):
        documents_of({"messages": inline}, Tokenizer.load(folder))
    assert documents_of({"messages": PLAIN}, Tokenizer.load(folder))


@pytest.mark.parametrize(
    "row, message",
    [
        ({"text": "a"}, r"has \['text'\], expected messages, or prompt and completion"),
        ({"prompt": "a"}, "expected messages, or prompt and completion"),
        ({"messages": []}, "expected a list of at least one"),
        ({"messages": "hello"}, "expected a list of at least one"),
        ({"messages": [{"role": "user"}]}, "whose role and content are texts"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "a", "thinking": 7},
                ]
            },
            "role and content are texts",
        ),
        ({"messages": PLAIN, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs is"),
        ({"messages": PLAIN, "chat_template_kwargs": [1]}, "chat_template_kwargs is"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogates not allowed"),
        ({"messages": ["hello"]}, "whose role and content are texts"),
        ({"messages": PLAIN[:1]}, "nothing to train on"),
        ({"messages": PLAIN[1:]}, "first message is the assistant's"),
        ({"prompt": "a", "completion": " "}, "completion is empty"),
        ({"prompt": 7, "completion": "b"}, "expected a list of at least one"),
    ],
)
def test_bad_rows(tokenizers, tmp_path, row, message):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n" + json.dumps({"messages": PLAIN}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"rows.jsonl, line 3: .*{message}"):
        read_documents(file, tokenizers["smollm"], 1000)


def test_bad_files_and_long_documents(tokenizers, tmp_path):
    file = tmp_path / "rows.jsonl"
    for text, message in (
        ("{", "line 1: not JSON"),
        ("[1]", r"line 1: expected a JSON object"),
        ("", "none of 0 documents"),
        ("\udcff{}", "line 1: not JSON"),
    ):
        file.write_text(text, errors="surrogateescape")
        with pytest.raises(ValueError, match=message):
            read_documents(file, tokenizers["smollm"], 1000)
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b" * 300}]
    file.write_text("\n".join(map(json.dumps, rows)))
    documents, left_out = read_documents(file, tokenizers["smollm"], 100)
    assert len(documents) == left_out == 1
    length = documents[0].length
    assert read_documents(file, tokenizers["smollm"], length)[1] == 1
    with pytest.raises(ValueError, match="none of 2 documents has at most"):
        read_documents(file, tokenizers["smollm"], length - 1)
