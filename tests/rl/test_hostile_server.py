"""A server that breaks, lies, drips or floods: one sentence in time, or another try; never a
completion of garbage."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deepwright.rl import server as subject
from deepwright.rl.outside import Handover, OutsideSampler
from deepwright.rl.server import ask_each
from deepwright.sampler import Completion, Sampling, StopReason
from tests.rl.fakes import TOKENIZER, make_model
from tests.rl.raw import OK, TEN_GIGABYTES, Raw, Script, drips, floods, says

EOS, VOCABULARY = TOKENIZER.eos_id, TOKENIZER.vocab_size
ASKED = Sampling(4, stop_ids=(EOS,), n=2)
PROMPT = [0, 3, 7]
GOOD = {
    "index": 0, "token_ids": [3, EOS], "finish_reason": "stop",
    "logprobs": {"token_logprobs": [-0.5, -1.5], "tokens": ["token_id:3", f"token_id:{EOS}"]},
}  # fmt: skip
OTHER = {**GOOD, "index": 1, "token_ids": [3, 4, 5, 6], "finish_reason": "length",
         "logprobs": {"token_logprobs": [-1, -2, -3, -4]}}  # fmt: skip
RIGHT = [
    Completion((3, EOS), (-0.5, -1.5), StopReason.STOP),
    Completion((3, 4, 5, 6), (-1.0, -2.0, -3.0, -4.0), StopReason.LENGTH),
]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(subject, "PAUSES", (0.01, 0.02))


def answers(choices: object) -> Script:
    return says(json.dumps({"choices": choices}).encode())


GOES_WELL = answers([OTHER, GOOD])


@pytest.fixture
def raw() -> Iterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def make(*scripts: Script) -> Raw:
        made.append(Raw(*scripts))
        return made[-1]

    yield make
    for one in made:
        one.close()


def sample(server: Raw, seconds: float = 5.0) -> list[Completion] | str:
    """The completions, or the sentence that refuses them."""
    sampler = OutsideSampler(server.url, "tiny", timeout=seconds, vocabulary=VOCABULARY)
    try:
        return sampler.sample([PROMPT], ASKED)[0]
    except ValueError as error:
        return str(error)


def refused(server: Raw, seconds: float = 5.0, within: float = 5.0) -> str:
    begun = time.monotonic()
    said = sample(server, seconds)
    assert time.monotonic() - begun < within
    assert isinstance(said, str), f"{said} was taken"
    assert len(said) < 800 and "127.0.0.1" in said
    return said


def test_a_right_answer_is_taken(raw):
    assert sample(raw(GOES_WELL)) == RIGHT


# ---- what is said


def changed(**fields: object) -> dict:
    return {**GOOD, **fields}


def drawn(*log_probs: object) -> dict:
    return changed(logprobs={"token_logprobs": list(log_probs)})


LIES = {
    "an id outside the vocabulary": changed(token_ids=[VOCABULARY, EOS]),
    "an id of a billion": changed(token_ids=[10**9, EOS]),
    "an id beyond 64 bits": changed(token_ids=[10**30, EOS]),
    "a negative id": changed(token_ids=[-1, EOS]),
    "an id in quotes": changed(token_ids=["3", EOS]),
    "a fractional id": changed(token_ids=[3.0, EOS]),
    "no id": changed(token_ids=[None, EOS]),
    "an id that is true": changed(token_ids=[True, EOS]),
    "a list for an id": changed(token_ids=[[3], EOS]),
    "ids that are a text": changed(token_ids="35"),
    "ids that are a table": changed(token_ids={"0": 3, "1": EOS}),
    "a log-probability of 5": drawn(5, -1),
    "one a little above 0": drawn(0.01, -1),
    "one that is not a number": drawn(math.nan, -1),
    "minus infinity": drawn(-math.inf, -1),
    "-9999, which stands for none": drawn(-9999.0, -1),
    "a log-probability in quotes": drawn("-1", -1),
    "no log-probability": drawn(None, -1),
    "one that is true": drawn(True, -1),
    "too few": drawn(-1),
    "too many": drawn(-1, -1, -1),
    "a table of them": changed(logprobs={"token_logprobs": {"0": -1, "1": -1}}),
    "a text for them": changed(logprobs="none"),
    "more tokens than asked for": changed(
        token_ids=[3] * 5, finish_reason="length", logprobs={"token_logprobs": [-1] * 5}
    ),
    "tokens after the end": changed(token_ids=[EOS, EOS]),
    "an end that is none": changed(token_ids=[3, 4]),
    "no tokens": changed(token_ids=[], logprobs={"token_logprobs": []}),
    "an aborted completion": changed(finish_reason="abort"),
    "no reason": changed(finish_reason=None),
    "a reason of another kind": changed(finish_reason=["stop"]),
    "an index of another kind": changed(index="0"),
    "an index twice": changed(index=1),
    "an index too large": changed(index=2),
    "a negative index": changed(index=-1),
    "a choice that is a text": "hello",
    "a choice that is nothing": None,
}  # fmt: skip


def check_lie(lie: str) -> None:
    with contextlib.closing(Raw(answers([LIES[lie], OTHER]))) as server:
        refused(server)
    assert server.asked == 1


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(lie):
    check_lie(lie)


@pytest.mark.parametrize("log_prob", [0, 0.0, -0.0, 1e-7, 5e-4])
def test_rounding_is_no_lie(raw, log_prob):
    """A probability that is above 1 by rounding is 1."""
    assert sample(raw(answers([drawn(log_prob, -1), OTHER])))[0].log_probs == (0.0, -1.0)


def test_a_stop_token_as_the_last_that_fits_is_an_end(raw):
    """Whatever the server calls it, the answer is whole."""
    said = changed(
        token_ids=[3, 4, 5, EOS], finish_reason="length", logprobs={"token_logprobs": [-1] * 4}
    )
    assert sample(raw(answers([said, OTHER])))[0].stop is StopReason.STOP


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html><body>Welcome to nginx!</body></html>", b"null", b"[]", b"3", b'"choices"',
        b"{}",
        b'{"choices": null}', b'{"choices": {}}', b'{"choices": []}', b'{"choices": [[]]}',
        json.dumps({"choices": [GOOD]}).encode(),
        json.dumps({"choices": [GOOD, OTHER, OTHER]}).encode(),
        b"\xff\xfe\x00", b'{"choices": [', b"[" * 100_000, b'{"choices": ' + b"9" * 5000 + b"}",
        b'{"error": "no model"}',
        b'{"choices": "' + b"x" * 500_000 + b'"}',
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_an_answer_that_is_none(raw, body):
    refused(raw(says(body)))


# ---- how it is said


@pytest.mark.parametrize(
    "script",
    [floods(OK + TEN_GIGABYTES), floods(OK + b"\r\n"),
     floods(b"HTTP/1.1 400 Bad\r\n" + TEN_GIGABYTES),
     floods(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n")],
    ids=["with its length", "without", "of an error", "in chunks"],
)  # fmt: skip
def test_a_flood_is_cut_off(raw, script):
    server = raw(script)
    said = refused(server)
    assert "more than 1," in said or "answered 400" in said
    assert server.asked == 1


@pytest.mark.parametrize(
    "script",
    [drips(OK + b"Content-Length: 600\r\n\r\n", b" "), drips(OK + b"\r\n", b" "),
     drips(b"HTTP/1.1 400 Bad\r\nContent-Length: 600\r\n\r\n", b" "),
     drips(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
     lambda connection: time.sleep(30)],
    ids=["a body", "one without a length", "an error", "chunks", "silence"],
)  # fmt: skip
def test_bytes_that_drip_have_a_deadline(raw, script):
    said = refused(raw(script), seconds=0.7)
    assert "within 0.7 s" in said or "answered 400: without a text" in said


@pytest.mark.parametrize(
    "script", [drips(b"", b"H"), drips(OK, b"X: y\r\n")], ids=["line", "heads"]
)
def test_headers_that_drip_have_one_too(raw, script, monkeypatch):
    monkeypatch.setattr(subject, "SLACK", 0.5)
    refused(raw(script), seconds=0.5, within=3.0)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
def test_compressed_answers_are_not_unpacked(raw, coding):
    bomb = b"\x1f\x8b" + b"\0" * 1000
    assert f"answered with '{coding}' coding" in refused(
        raw(says(bomb, "200 OK", f"Content-Encoding: {coding}"))
    )


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_nobody_is_followed_elsewhere(raw, code):
    other = raw(GOES_WELL)
    server = raw(says(b"", f"{code} There", f"Location: {other.url}/completions"))
    assert f"answered {code} and points to '{other.url}" in refused(server)
    assert (server.asked, other.asked) == (1, 0)


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x16\x03\x01\x02\x00", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100_000,
     OK + b"X" * 70_000 + b": 1\r\n\r\n", OK + b"X: 1\r\n" * 200 + b"\r\n",
     OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", OK + b"Content-Length: abc\r\n\r\n{}",
     OK + b"Content-Length: -5\r\n\r\n{}"],
    ids=lambda garbage: repr(garbage[-24:]),
)  # fmt: skip
def test_what_is_no_http(raw, garbage):
    refused(raw(lambda connection: connection.sendall(garbage)))


@pytest.mark.parametrize("code", [400, 401, 404, 418, 500])
def test_an_error_is_said_with_its_text(raw, code):
    server = raw(says(b"max_tokens\nis too large" + b"!" * 5000, f"{code} No"))
    assert f"answered {code}: max_tokens is too large!!!" in refused(server)
    assert server.asked == 1


def closes(connection: socket.socket) -> None:
    pass


def breaks_off(connection: socket.socket) -> None:
    connection.sendall(OK + b'Content-Length: 500\r\n\r\n{"choices": [')


def resets(connection: socket.socket) -> None:
    connection.sendall(OK + b"Content-Length: 500\r\n\r\n{")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def cuts_a_chunk(connection: socket.socket) -> None:
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{")


PASSING = [
    closes,
    breaks_off,
    resets,
    cuts_a_chunk,
    *(says(b"", f"{code} Busy") for code in subject.BUSY),
]


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(raw, fault):
    server = raw(fault, fault, GOES_WELL)
    assert sample(server) == RIGHT
    assert server.asked == 3


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_is_said_in_the_end(raw, fault):
    server = raw(fault)
    assert "(asked 3 times)" in refused(server)
    assert server.asked == 3


def test_the_deadline_is_over_all_tries(raw, monkeypatch):
    monkeypatch.setattr(subject, "PAUSES", (0.2,) * 100)
    server = raw(says(b"", "503 Busy"))
    refused(server, seconds=0.7, within=2.0)
    assert 2 <= server.asked <= 4


def test_half_closed_by_the_server_is_read_to_its_end(raw):
    read = threading.Event()

    def half(connection: socket.socket) -> None:
        body = json.dumps({"choices": [GOOD, OTHER]}).encode()
        connection.sendall(OK + b"Connection: close\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        read.wait(30)

    begun = time.monotonic()
    assert sample(raw(half)) == RIGHT
    assert time.monotonic() - begun < 15
    read.set()


# ---- TLS, names, keys, many at once


def test_tls_where_there_is_none_and_the_other_way_round(raw, tmp_path):
    plain = raw(GOES_WELL)
    sampler = OutsideSampler(plain.url.replace("http:", "https:"), "tiny", timeout=3)
    with pytest.raises(ValueError, match=r"did not (answer|close)"):
        sampler.sample([PROMPT], ASKED)


@pytest.mark.parametrize(
    "url",
    ["http://", "http://:80/v1", "http://127.0.0.1:99999/v1", "http://127.0.0.1:0x50/v1",
     "http://[::1/v1", "http://" + "a" * 300 + "/v1", "http://a..b/v1", "http://127.0.0.1/v 1",
     "http://no-such-host.invalid/v1",
     "http://127.0.0.1:1/" + "x" * 100_000],
    ids=lambda url: url[:30],
)  # fmt: skip
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError) as caught:
        OutsideSampler(url, "tiny", timeout=3).sample([PROMPT], ASKED)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("key", ["secret\n", "sécret", "a\0b"])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="the server's key has characters") as caught:
        OutsideSampler("http://127.0.0.1:1/v1", "tiny", key=key)
    assert "cret" not in str(caught.value)


def test_the_first_fault_ends_all_and_waits_for_none():
    begun, started, over = time.monotonic(), [], threading.Event()

    def ask(i: int) -> int:
        started.append(i)
        if i == 2:
            raise ValueError("the third")
        over.wait(30)
        return i

    with pytest.raises(ValueError, match="the third"):
        list(ask_each(ask, 100, 4, 60.0, "it"))
    over.set()
    assert time.monotonic() - begun < 15 and len(started) <= 8


def test_answers_come_as_they_are_ready_and_with_their_numbers():
    def ask(i: int) -> int:
        time.sleep(0.05 * (4 - i))
        return -i

    assert list(ask_each(ask, 4, 4, 5.0, "it")) == [(3, -3), (2, -2), (1, -1), (0, 0)]
    assert sorted(ask_each(lambda i: i, 20, 8, 5.0, "it")) == [(i, i) for i in range(20)]
    assert list(ask_each(ask, 0, 8, 5.0, "it")) == []


# ---- handing the weights over


def handing_over(folder: Path, reload: str, seconds: float = 5.0) -> OutsideSampler:
    handover = Handover(make_model(), TOKENIZER, folder, reload)
    return OutsideSampler("http://127.0.0.1:1/v1", "tiny", handover, timeout=seconds)


def test_a_server_that_does_not_take_the_weights_is_not_asked(raw, tmp_path):
    server = raw(says(b'{"success": false, "message": "no memory"}'))
    with pytest.raises(ValueError, match="the weights were not taken"):
        handing_over(tmp_path / "handed", f"{server.url}/reload").sample([PROMPT], ASKED)


@pytest.mark.parametrize("another", [False, True])
def test_weights_are_not_handed_over_into_a_folder_that_is_gone(tmp_path, another):
    (tmp_path / "run").mkdir()
    sampler = handing_over(tmp_path / "run" / "handed", "true")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    if another:
        (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="where weights are handed over, is gone"):
        sampler.sample([PROMPT], ASKED)
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'sleep 30 & sleep 30'", "did not end within 1 s"),
        ("sh -c 'head -c 30000000 /dev/zero >&2; exit 3'", "ended with 3"),
        (
            "sh -c 'echo one >&2; echo the last line >&2; exit 4'",
            "ended with 4: one the last line$",
        ),
        ("'unclosed", "cannot be read: No closing quotation"),
        ("  ", "expected a command or a URL"),
    ],
)
def test_a_reload_command_that_hangs_floods_or_is_none(tmp_path, command, said):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=said):
        handing_over(tmp_path / "handed", command, 1.0).sample([PROMPT], ASKED)
    assert time.monotonic() - begun < 5


def test_a_certificate_nobody_signed_is_refused(tmp_path):
    """TLS with a name or a signer that does not fit is a fault that no retry mends."""
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise ssl.SSLCertVerificationError("certificate verify failed: self-signed certificate")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "wrap_socket", refuse)
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"https://127.0.0.1:{server.getsockname()[1]}/v1"
            with pytest.raises(ValueError, match="did not answer: .*certificate verify failed"):
                OutsideSampler(url, "tiny", timeout=3).sample([PROMPT], ASKED)
    assert asked == [1]
