"""What is to be known of the processor that a model runs on."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

OTHER_MAKERS = ("AMD", "Hygon")
"""How the names of x86 processors begin of which MKL does not use all: see `matrices`."""


def is_eager_cpu(x: Tensor) -> bool:
    """Whether `x` is computed on a processor operator by operator, and not to make a graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch._C._is_tracing()


def capabilities() -> Mapping[str, Any]:
    """What torch knows of the processor; nothing in versions of torch that do not tell."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


@functools.cache
def is_mkl_slow() -> bool:
    """Whether torch has float32 matrices multiplied by MKL on a processor that is not Intel's."""
    name = str(capabilities().get("cpu_name", ""))
    return torch.backends.mkl.is_available() and name.startswith(OTHER_MAKERS)
