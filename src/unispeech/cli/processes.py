"""Which of several processes this is, as `torchrun` and `accelerate launch` say it."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Process:
    """One of the processes that share a job."""

    rank: int = 0
    """Its number, in [0, num_ranks)."""
    num_ranks: int = 1
    """How many there are, on all machines."""
    local_rank: int = 0
    """Its number on this machine: that of its GPU."""


def this_process() -> Process:
    """Read RANK, WORLD_SIZE and LOCAL_RANK.

    Returns:
        This process; the only one where they are not set.

    Raises:
        ValueError: If they are not numbers that fit together.
    """
    rank, num_ranks, local_rank = (
        _number(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if not 0 <= rank < num_ranks:
        raise ValueError(f"RANK must lie in [0, WORLD_SIZE) = [0, {num_ranks}), but is {rank}.")
    return Process(rank=rank, num_ranks=num_ranks, local_rank=local_rank)


def own_device(device: str, process: Process) -> str:
    """Choose the device of a process: each has a GPU of its own where there are GPUs.

    Args:
        device: What `--device` says.
        process: The process.

    Returns:
        A torch device, or "auto" for the only process.
    """
    if device != "auto" or process.num_ranks == 1:
        return device
    import torch

    return f"cuda:{process.local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def _number(name: str, default: int) -> int:
    """A whole number of the environment."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, as a launcher sets it, but is {text!r}.")
    return int(text)
