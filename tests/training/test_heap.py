"""Memory that an update frees stays with the process."""

import platform
import subprocess
import sys

import pytest

from unispeech.training import heap

MEGABYTES_KEPT = """
import torch
from unispeech.training.heap import keep_freed_memory
{call}
def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 // 2**20
before = resident()
torch.ones(2**26)  # 256 MB, freed at once
print(resident() - before)
"""


def megabytes_kept(call):
    script = MEGABYTES_KEPT.format(call=call)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_stays_with_the_process():
    assert megabytes_kept("") < 50
    assert megabytes_kept("assert keep_freed_memory()") > 200


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert heap.keep_freed_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "linux")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert heap.keep_freed_memory() is False
