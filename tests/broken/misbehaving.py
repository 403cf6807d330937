"""Checks that a fuzz test must not call survived."""

import mmap
import os
import signal
import time


def traceback(draw, folder):
    raise KeyError("weight_map")


def of_a_library(draw, folder):
    b"\xff".decode()


def nameless(draw, folder):
    raise ValueError("something is wrong")


def long_sentence(draw, folder):
    (folder / "config.json").touch()
    raise ValueError("config.json: " + "x" * 800)


def hang(draw, folder):
    time.sleep(60)


def busy(draw, folder):
    end = time.process_time() + 0.7
    while time.process_time() < end:
        pass


def memory(draw, folder):
    bytearray(1 << 30)


def mapped(draw, folder):
    mmap.mmap(-1, 1 << 30)
    raise ValueError(f"{folder} is too large")


def killed(draw, folder):
    os.kill(os.getpid(), signal.SIGSEGV)


def ended(draw, folder):
    os._exit(3)


def right(draw, folder):
    print("noise that is no answer")
    if draw.random() < 0.5:
        raise ValueError(f"{folder} is refused")
