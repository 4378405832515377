"""The processes of a run: their device, their number format, and the signals that end them."""

import os
import shutil
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from unispeech.models.processor import capabilities

SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")
"""What `accelerate launch` sets to spread a model in ways of its own, which checkpoints cannot hold."""


class Interruption:
    """Catches SIGINT and SIGTERM while the loop runs; a second one of either ends the process at once."""

    def __init__(self) -> None:
        self.number = 0
        """The signal that came; 0: none."""
        self._earlier: dict[int, Any] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether the loop is to stop."""
        return self.number != 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._notice)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.is_wanted:
            raise KeyboardInterrupt
        self.number = number


def make_accelerator(precision: str) -> Accelerator:
    """The processes, the device and the number format of a run.

    Args:
        precision: "float32", "bf16", or "auto" for bf16 where the processor multiplies it natively.

    Returns:
        An accelerator; its own accumulation counter stays at 1, because the loop counts targets itself.

    Raises:
        ValueError: If bf16 is asked of a GPU that has none, or the launch spreads the model over processes.
    """
    for name in SHARDED:
        if os.environ.get(name, "false").lower() in {"1", "true"}:
            raise ValueError(
                f"`runtime.shard` must spread the model over processes, but {name} is set; launch without it."
            )
    # accelerate joins the processes of a CPU run only when it is told that it is one.
    is_cpu = not torch.accelerator.is_available()
    device = PartialState(cpu=is_cpu).device
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError("`runtime.precision` must be float32 on this GPU, but is bf16.")
    use_bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
    number_format = "bf16" if use_bf16 else "no"
    if AcceleratorState._shared_state.get("_mixed_precision", number_format) != number_format:
        # accelerate keeps the format of a process's first run and refuses any other; notebooks train twice.
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=number_format, cpu=is_cpu, gradient_accumulation_steps=1)


def leave_processes() -> None:
    """Part from the other processes, at the end of a run that all of them ended; one process alone has none.

    A process that exits without it may be killed by the threads that still listen to the others, and a
    launcher then takes a run that ended well for one that failed. After an error it is not called: it waits
    for the others, who may wait for something else.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def check_compiler(device: torch.device) -> None:
    """Look whether layers can be compiled, before anything is read for a run.

    Args:
        device: Where the model runs.

    Raises:
        ValueError: If a processor is to compile without a C++ compiler.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"`runtime.compile` must be false without a C++ compiler, but is true, and {compiler} is not "
            "there; install it, or name another by the variable CXX."
        )


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices natively, so that autocast pays.

    Args:
        device: Where the model runs.

    Returns:
        True for GPUs with bf16 and processors with AVX512-BF16 or AMX.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    known = capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
