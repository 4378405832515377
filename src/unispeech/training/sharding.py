"""Weights, gradients and the optimiser's memory shared out among the processes of a run: torch's FSDP2.

accelerate shards on GPUs only, so this asks torch itself, whose `fully_shard` works on processors (gloo) as
well. Each layer of the encoder is a unit that is whole while it runs; the rest of the model is another.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unispeech.models.encoder import UniSpeechEncoderLayer


def shard_model(model: nn.Module, device: torch.device, num_processes: int) -> None:
    """Keep only a share of each parameter in this process; names stay as they are.

    Args:
        model: The bare model, whole and the same in all processes.
        device: Where it runs.
        num_processes: How many share it.
    """
    # Outputs of the model may be views; nobody changes them in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (num_processes,))
    for layer in [part for part in model.modules() if isinstance(part, UniSpeechEncoderLayer)]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Make every parameter whole for a while, so that processes may run the model by themselves.

    Args:
        model: Sharded or not.
    """
    units = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            # As `fully_shard` sets it: the root keeps its weights for the way back, layers do not.
            unit.set_reshard_after_forward(unit is not model, recurse=False)


def gathered(value: Any) -> Any:
    """Replace shares of tensors by whole tensors on the CPU, in dicts and lists of any depth.

    Args:
        value: The same in all processes, which come here together.

    Returns:
        The value; what is not sharded is as it was.
    """
    if isinstance(value, DTensor):
        return value.full_tensor().detach().cpu()
    if isinstance(value, dict):
        return {key: gathered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [gathered(item) for item in value]
    return value


def shared_out(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Cut the state of an optimiser as its parameters are cut.

    Args:
        state: Of a checkpoint, with whole tensors.
        optimizer: The optimiser that takes it; its parameters are sharded or not.

    Returns:
        A state that it can load.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def share(number: int, value: Any) -> Any:
        parameter = parameters[number]
        if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
            # Every process has read the whole, so nothing is sent.
            placed = value.to(parameter.device)
            return distribute_tensor(placed, parameter.device_mesh, parameter.placements, src_data_rank=None)
        return value

    return {
        **state,
        "state": {
            number: {name: share(number, value) for name, value in own.items()}
            for number, own in state["state"].items()
        },
    }
