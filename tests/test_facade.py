"""`import deepwright as dw` gives what the README says, and nothing heavy before it is asked for."""

import subprocess
import sys

import pytest

import deepwright as dw


@pytest.mark.parametrize("name", dw.__all__)
def test_every_name_is_there(name):
    assert getattr(dw, name) is not None
    assert name in dir(dw)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Enginee'"):
        _ = dw.Enginee


def test_import_alone_loads_no_torch():
    code = "import sys, deepwright as dw; dw.ModelConfig, dw.Sampling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
