"""`import deepwright as dw` gives what the README says, and nothing heavy before it is asked for."""

import os
import subprocess
import sys

import pytest

import deepwright as dw
from deepwright.sampler import Completion, StopReason
from deepwright.verify.doctor import spins


@pytest.mark.parametrize("name", dw.__all__)
def test_every_name_is_there(name):
    assert getattr(dw, name) is not None
    assert name in dir(dw)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Enginee'"):
        _ = dw.Enginee


def said(code, **environment):
    """What a fresh process prints, in which OpenMP's variable is as given."""
    known = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    run = [sys.executable, "-c", f"import os, sys; {code}"]
    return subprocess.run(
        run, env=known | environment, capture_output=True, text=True, check=True
    ).stdout.split()


def test_import_alone_loads_no_torch():
    code = "import deepwright as dw; dw.ModelConfig, dw.Sampling; print('torch' in sys.modules)"
    assert said(code) == ["False"]


def test_a_library_user_s_idle_threads_sleep_as_a_command_s_do():
    """OpenMP reads the variable while torch is loaded: what stands there then is what counts."""
    tell = "print(os.environ['GOMP_SPINCOUNT'], dw.SPINS_LATE)"
    code = f"import deepwright as dw; {tell}; print('torch' in sys.modules)"
    assert said(code) == [dw.SPINS, "False", "False"]
    assert said(code, GOMP_SPINCOUNT="7") == ["7", "False", "False"]
    # a module stands for torch: what counts is that it was loaded
    late = f"sys.modules['torch'] = sys; import deepwright as dw; {tell}"
    assert said(late) == [dw.SPINS, "True"]
    assert said(late, GOMP_SPINCOUNT="7") == ["7", "False"]


def test_doctor_says_when_it_came_too_late(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "2000")
    monkeypatch.setattr(dw, "SPINS_LATE", False)
    assert (spins().value, spins().remark) == ("2000 spins", "GOMP_SPINCOUNT")
    monkeypatch.setattr(dw, "SPINS_LATE", True)
    assert spins().remark.startswith("not in force: torch was loaded before deepwright")


def test_sampling_has_defaults_and_a_text_is_no_part_of_a_completion():
    assert dw.Sampling() == dw.Sampling(256, temperature=1.0, top_p=1.0, n=1)
    one, other = (Completion((1, 2), (-1.0, -1.0), StopReason.STOP, text) for text in ("a", None))
    assert one == other and (one.text, other.text) == ("a", None)
