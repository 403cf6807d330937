"""Run folders, their files and outside samplers with one mistake each: a named test rejects it."""

from __future__ import annotations

import fcntl
import shutil
import urllib.request

import pytest

from deepwright.recipe import checks, harvest, owner, session
from deepwright.rl import outside, server
from deepwright.train import checkpoint
from tests.broken.patched import must_reject
from tests.recipe import test_damaged_runs as damage
from tests.recipe import test_owner as owners
from tests.recipe import test_session as sessions
from tests.recipe.test_settings import check_a_row_of_one_token
from tests.rl import test_hostile_server as hostile
from tests.rl.raw import OK, Raw, drips
from tests.train import test_checkpoint as checkpoints


def never(real):
    """A lock that everybody gets, a check that finds nothing, a test that is never true."""
    return lambda *arguments, **named: None


def always(real):
    return lambda *arguments, **named: True


def gone(folder):
    owners.test_a_folder_that_is_gone_is_noticed_and_what_took_its_place_is_left_alone(
        folder, shutil.rmtree
    )


def lie(name: str):
    return lambda: hostile.check_lie(name)


def hostile_check(check, *arguments):
    """A check of the outside sampler with servers that are closed after it."""

    def run():
        made = []

        def raw(*scripts):
            made.append(Raw(*scripts))
            return made[-1]

        try:
            check(raw, *arguments)
        finally:
            for one in made:
                one.close()

    return run


DRIP = drips(OK + b"Content-Length: 600\r\n\r\n", b" ")


def patient(real):
    """Looks at no clock: every byte may take as long as the socket lets it."""

    def read(answer, most, end):
        return real(answer, most, float("inf"))

    return read


TWINS = [
    (owners.test_of_many_at_once_one_gets_in, fcntl, "flock", never),
    (owners.test_a_file_that_its_owner_removes_meanwhile_locks_nobody, owner, "_is_at", always),
    (gone, owner.Owner, "check", never),
    (sessions.test_what_a_kill_leaves_before_the_settings_is_no_run, session, "_is_leftover",
     never),
    (checkpoints.test_a_manifest_that_leaves_out_a_file_vouches_for_nothing, checkpoint,
     "_own_files", lambda real: lambda folder: []),
    (lambda folder: damage.try_samples(folder / "pairs.jsonl", range(100)), harvest,
     "expect_fields", never),
    (check_a_row_of_one_token, checks, "_check_pretraining", never),
    (lie("a log-probability of 5"), outside, "MOST", lambda real: 10.0),
    (lie("-9999, which stands for none"), outside, "LEAST", lambda real: -1e9),
    (lie("a fractional id"), outside, "holds", always),
    (lie("tokens after the end"), outside.OutsideSampler, "_check_tokens", never),
    (hostile_check(hostile.test_bytes_that_drip_have_a_deadline, DRIP), server, "_read", patient),
    (hostile_check(hostile.test_nobody_is_followed_elsewhere, 302), server, "_OPENER",
     lambda real: urllib.request.build_opener()),
    (hostile_check(hostile.test_what_passes_is_tried_again, hostile.breaks_off), server, "PAUSES", lambda real: ()),
]  # fmt: skip


@pytest.mark.parametrize(
    "check, owned_by, name, wrong",
    TWINS,
    ids=[f"{twin[2]} {place}" for place, twin in enumerate(TWINS)],
)
def test_the_check_rejects_the_twin_and_passes_without_it(
    check, owned_by, name, wrong, tmp_path, monkeypatch
):
    monkeypatch.setattr(server, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(server, "SLACK", 5.0)  # above what the checks allow
    must_reject(check, owned_by, name, wrong, tmp_path)
