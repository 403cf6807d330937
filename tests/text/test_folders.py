"""Tokenizer files of other people: what was saved along changes nothing, what begins and ends a
text is reconciled."""

import json

import pytest
import tokenizers
from tokenizers import AddedToken, processors

from deepwright.text import Tokenizer
from deepwright.text.templates import PLAIN_TEMPLATE
from tests.models import tiny

TEXTS = [
    "hello to you", "  what   is 2 + 2 ", "<|im_start|>user\nhi<|im_end|>\n", "a <|im_end|> b", "<|endoftext|>", "",
    "<tool>x</tool> <tool> y", "naïve  日本語\n\n",
]  # fmt: skip
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END, START, TURN = range(3)
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PADDING = {
    "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": END, "pad_type_id": 0,
    "pad_token": "<|endoftext|>",
}  # fmt: skip
TRUNCATION = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}


def write(
    folder, *, change=lambda backend: None, saved=None, config=None, generation=None, model=None
):
    """A byte-level tokenizer as Hugging Face folders hold it. `saved`: keys of tokenizer.json put
    over its own."""
    backend = tokenizers.Tokenizer.from_str(tiny.vocabulary("smollm", SPECIALS))
    change(backend)
    values = json.loads(backend.to_str()) | (saved or {})
    tiny.write_json(folder / "tokenizer.json", values)
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "chat_template": CHAT}
    names["tokenizer_class"] = "PreTrainedTokenizerFast"
    tiny.write_json(folder / "tokenizer_config.json", names | (config or {}))
    for name, given in (("generation_config", generation), ("config", model)):
        if given is not None:
            tiny.write_json(folder / f"{name}.json", given)
    return folder


def ids(folder):
    tokenizer = Tokenizer.load(folder)
    return [tokenizer.encode(text) for text in TEXTS]


def theirs(folder):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]


# ---- what was saved along


@pytest.mark.parametrize("length", [0, 1, 16, 2**40])
@pytest.mark.parametrize("side", ["Left", "Right"])
def test_saved_padding_and_truncation_change_nothing(tmp_path, side, length):
    """A pad token that is BOS looks like a BOS that tokenizer.json adds; an absurd length is never
    asked for."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "saved").mkdir()
    padding = PADDING | {"direction": side, "strategy": {"Fixed": length}}
    plain = write(tmp_path / "plain")
    saved = write(tmp_path / "saved", saved={"padding": padding, "truncation": TRUNCATION})
    assert ids(plain) == ids(saved) == theirs(plain)
    for folder in (plain, saved):
        tokenizer = Tokenizer.load(folder)
        assert not tokenizer.adds_bos
        assert tokenizer.encode_prompt("hi") == tokenizer.encode("<|im_start|>user\nhi<|im_end|>\n")
        assert tokenizer.encode("hello", specials=False) == tokenizer.encode("hello")


POSTS = {
    "none": None,
    "byte level": processors.ByteLevel(trim_offsets=False),
    "template": processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[]),
    "adds bos": processors.TemplateProcessing(
        single="<|endoftext|> $A",
        pair="<|endoftext|> $A $B",
        special_tokens=[("<|endoftext|>", END)],
    ),
    "adds eos": processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B", special_tokens=[("<|endoftext|>", END)]
    ),
    "sequence": processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|endoftext|> $A", pair="$A $B", special_tokens=[("<|endoftext|>", END)]
            ),
        ]
    ),
}


@pytest.mark.parametrize("bos", [None, True, False])
@pytest.mark.parametrize("post", POSTS)
def test_post_processors_add_a_bos_or_change_nothing(tmp_path, post, bos):
    def change(backend):
        if POSTS[post] is not None:
            backend.post_processor = POSTS[post]

    config = {"add_eos_token": True} | ({} if bos is None else {"add_bos_token": bos})
    folder = write(tmp_path, change=change, config=config)
    assert ids(folder) == theirs(folder)
    # A text of its own: BOS where the file adds it, or the config asks for it. An end that is added
    # to an empty text is the same token here, and is no beginning.
    assert Tokenizer.load(folder).adds_bos == (post in ("adds bos", "sequence") or bos is True)


ADDED = [
    AddedToken("<tool>", lstrip=True, special=False, normalized=False),
    AddedToken("<tool>", rstrip=True, special=False, normalized=False),
    AddedToken("<tool>", single_word=True, special=True, normalized=False),
    AddedToken("<tool>", lstrip=True, rstrip=True, special=True, normalized=True),
    AddedToken("hell", special=False, normalized=True),
]


@pytest.mark.parametrize("token", ADDED, ids=repr)
@pytest.mark.parametrize("where", ["tokenizer.json", "tokenizer_config.json", "both"])
def test_added_tokens_and_their_flags(tmp_path, token, where):
    """Those that stand in tokenizer_config.json alone, or there with other flags, count as in
    transformers."""
    index = tokenizers.Tokenizer.from_str(tiny.vocabulary("smollm", SPECIALS)).get_vocab_size()
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    listed = {
        str(index): {"content": token.content} | {flag: getattr(token, flag) for flag in flags}
    }

    def change(backend):
        plain = AddedToken(token.content, normalized=False)
        backend.add_tokens([plain if where == "both" else token])

    folder = write(
        tmp_path,
        change=change if where != "tokenizer_config.json" else lambda backend: None,
        config={"added_tokens_decoder": listed} if where != "tokenizer.json" else None,
    )
    assert ids(folder) == theirs(folder)
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.token(index) == token.content and tokenizer.vocab_size == index + 1
    tokenizer.save(tmp_path / "again")
    assert ids(tmp_path / "again") == ids(folder)


def test_a_vocabulary_with_holes_is_as_long_as_its_largest_id(tmp_path):
    """Counting its entries would let an id beyond the embedding through."""
    folder = write(tmp_path)
    values = json.loads((folder / "tokenizer.json").read_text())
    last = max(values["model"]["vocab"], key=values["model"]["vocab"].get)
    values["model"]["vocab"][last] = 5000
    tiny.write_json(folder / "tokenizer.json", values)
    assert Tokenizer.load(folder).vocab_size == 5001


# ---- beginnings and ends


@pytest.mark.parametrize(
    ("generation", "model", "expected"),
    [
        (None, None, [TURN]),
        ({"eos_token_id": TURN}, None, [TURN]),
        (
            {"eos_token_id": [TURN, END]},
            {"eos_token_id": END},
            [TURN, END],
        ),  # a base model made to chat
        ({"eos_token_id": [END, TURN]}, None, [TURN, END]),
        (None, {"eos_token_id": END}, [TURN, END]),  # as unsloth leaves it
        (None, {"eos_token_id": [END, TURN]}, [TURN, END]),
        ({"eos_token_id": None}, {"eos_token_id": None}, [TURN]),
        ({"eos_token_id": []}, {}, [TURN]),
        ({"eos_token_id": END}, {"eos_token_id": START}, [TURN, END, START]),
        (
            {"eos_token_id": [TURN, 80]},
            None,
            [TURN, 80],
        ),  # an ordinary token beside the own one: meant
    ],
)
def test_ends_come_from_three_files(tmp_path, generation, model, expected):
    folder = write(tmp_path, generation=generation, model=model)
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_id == TURN and tokenizer.stop_ids == tuple(expected)
    tokenizer.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert (again.stop_ids, again.bos_id) == (tokenizer.stop_ids, tokenizer.bos_id)


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("model", {"eos_token_id": 80}, "eos_token_id is 80 in config.json, the ordinary token '.*', expected the tokenizer's 2, '<.im_end.>': write"),
        ("generation", {"eos_token_id": [81, 80]}, "eos_token_id is .81, 80. in generation_config.json, the ordinary token"),
        ("model", {"bos_token_id": 80}, "bos_token_id is 80 in config.json, the ordinary token .* expected the tokenizer's 0"),
        ("generation", {"bos_token_id": 80}, "bos_token_id is 80 in generation_config.json"),
        ("model", {"eos_token_id": 99999}, "special token 99999 is not in the vocabulary of"),
        ("generation", {"eos_token_id": "2"}, "generation_config.json: eos_token_id is '2', expected an id of the vocabulary, or"),
        ("generation", {"eos_token_id": True}, "eos_token_id is True"),
        ("generation", {"eos_token_id": [2, None]}, "eos_token_id is .2, None."),
        ("generation", {"eos_token_id": [2, -1]}, "eos_token_id is .2, -1."),
        ("generation", {"eos_token_id": 2**64}, "eos_token_id is a whole number of 65 bits"),
        ("model", {"bos_token_id": {"a": 1}}, "config.json: bos_token_id is {'a': 1}"),
    ],
)  # fmt: skip
def test_a_mismatch_that_cannot_be_right_says_what_to_change(tmp_path, file, values, said):
    folder = write(tmp_path, **{file: values})
    with pytest.raises(ValueError, match=said) as error:
        Tokenizer.load(folder)
    assert str(folder) in str(error.value)


def test_another_tokens_bos_is_no_mismatch(tmp_path):
    """Released Qwens name a BOS that their tokenizers have not; R1's students name the end of a
    text."""
    assert Tokenizer.load(write(tmp_path, model={"bos_token_id": TURN})).bos_id == END
    without = write(tmp_path, config={"bos_token": None}, model={"bos_token_id": 80})
    assert Tokenizer.load(without).bos_id is None


def test_an_end_that_only_the_models_files_name(tmp_path):
    folder = write(tmp_path, config={"eos_token": None}, generation={"eos_token_id": [TURN, END]})
    assert Tokenizer.load(folder).stop_ids == (TURN, END)
    (folder / "generation_config.json").unlink()
    with pytest.raises(ValueError, match="eos_token is None, expected the token's text"):
        Tokenizer.load(folder)


def test_a_pad_token_outside_the_vocabulary_changes_nothing(tmp_path):
    usual = Tokenizer.load(write(tmp_path))
    padded = Tokenizer.load(write(tmp_path, config={"pad_token": "[PAD]"}))
    assert padded.pad == usual.pad == "<|im_end|>" and padded.vocab_size == usual.vocab_size
    for text in TEXTS:
        assert padded.encode(text) == usual.encode(text)


def test_names_may_stand_in_special_tokens_map_alone(tmp_path):
    folder = write(tmp_path)
    (folder / "tokenizer_config.json").rename(folder / "special_tokens_map.json")
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (END, TURN)


# ---- files that are none


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"added_tokens_decoder": []}, "added_tokens_decoder is .., expected an object"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "added_tokens_decoder is {'x'"),
        ({"added_tokens_decoder": {"²": {"content": "a"}}}, "added_tokens_decoder is {'²'"),
        ({"added_tokens_decoder": {"9" * 500: {"content": "a"}}}, "added_tokens_decoder is"),
        ({"added_tokens_decoder": {"7": "a"}}, "added_tokens_decoder is {'7': 'a'}"),
        ({"added_tokens_decoder": {"7": {"content": "<x>"}}}, "the id of '<x>' is 7, expected"),
        ({"bos_token": {"content": None}}, "bos_token is {'content': None}"),
        ({"bos_token": ["<|endoftext|>"]}, "bos_token is ..<.endoftext"),
        ({"eos_token": "y" * 10_000}, "special token 'yyy"),
        ({"bos_token": "<nowhere>"}, "special token '<nowhere>' is not in the vocabulary"),
        (
            {"chat_template": [1, None]},
            "chat_template is .1, None., expected a text or one named 'default'",
        ),
        ({"chat_template": 7}, "chat_template is 7"),
    ],
)
def test_names_of_another_shape(tmp_path, config, said):
    folder = write(tmp_path, config=config)
    with pytest.raises(ValueError, match=said) as error:
        Tokenizer.load(folder)
    assert str(folder) in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("tokenizer.json", b"[" * 100_000, "tokenizer.json is no tokenizer"),
        ("tokenizer.json", b"\xff", "tokenizer.json is no tokenizer"),
        (
            "tokenizer.json",
            b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
            "is no tokenizer",
        ),
        ("tokenizer_config.json", b"null", "tokenizer_config.json holds None, expected an object"),
        ("tokenizer_config.json", b"[" * 100_000, "tokenizer_config.json is damaged: not JSON"),
        ("special_tokens_map.json", b"[]", "special_tokens_map.json holds .., expected an object"),
        ("generation_config.json", b"7", "generation_config.json holds 7, expected an object"),
        ("config.json", b'"x"', "config.json holds 'x', expected an object"),
        ("chat_template.jinja", b"\xff\xfe", "chat_template.jinja is no UTF-8 text"),
    ],
)
def test_files_of_another_shape(tmp_path, name, data, said):
    folder = write(tmp_path)
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=said) as error:
        Tokenizer.load(folder)
    assert str(folder) in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["tokenizer.model", "tiktoken.model", "tekken.json", "vocab.json"])
def test_a_vocabulary_in_another_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"has no tokenizer.json: its vocabulary is in {name}"):
        Tokenizer.load(tmp_path)


def test_without_a_template_messages_stand_one_after_the_other(tmp_path):
    assert (
        Tokenizer.load(write(tmp_path, config={"chat_template": None})).template == PLAIN_TEMPLATE
    )
