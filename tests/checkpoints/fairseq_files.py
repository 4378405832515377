"""Files in the shapes in which fairseq writes them, made without fairseq."""

import argparse
import enum
import operator
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Hint:
    """Pickles as the hint `Optional[list]` does: as a call of `operator.getitem` on types."""

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.getitem, ((list, type(None)), 0)


CONVS = "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8,2,2)] + [(8,2,2)]"
HIDDEN, INNER, GROUPS, ENTRIES, CODE_DIM, NUM_CLASSES = 16, 24, 2, 3, 12, 9
DICTIONARY = '{"a": 5, "b": 5, "|": 0, "t": 1, "s": 0}'

PRETRAINING: dict[str, Any] = {
    "extractor_mode": "layer_norm",
    "encoder_layers": 2,
    "encoder_embed_dim": HIDDEN,
    "encoder_ffn_embed_dim": INNER,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "dropout": 0.12,
    "attention_dropout": 0.13,
    "activation_dropout": 0.14,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.15,
    "dropout_features": 0.16,
    "final_dropout": 0.17,
    "final_dim": CODE_DIM,
    "layer_norm_first": True,
    "conv_feature_layers": CONVS,
    "conv_bias": True,
    "logit_temp": 0.2,
    "quantize_targets": True,
    "quantize_input": False,
    "target_glu": False,
    "feature_grad_mult": 0.5,
    "latent_vars": ENTRIES,
    "latent_groups": GROUPS,
    "latent_temp": (1.5, 0.1, 0.99),
    "transpose": True,
    "mask_length": 5,
    "mask_prob": 0.6,
    "mask_channel_length": 3,
    "mask_channel_prob": 0.2,
    "num_negatives": 11,
    "negatives_from_everywhere": True,
    "conv_pos": 6,
    "conv_pos_groups": 2,
    "replace_prob": 0.4,
}
OF_THE_TASK: dict[str, Any] = {"normalize": True, "dict_path": "data/vocab.json"}
OF_THE_CRITERION: dict[str, Any] = {"mtlalpha": 0.3, "loss_weights": "[0.2, 10]"}
FINE_TUNING: dict[str, Any] = {
    "w2v_path": "somewhere/stage1.pt",
    "apply_mask": True,
    "dropout": 0.01,
    "attention_dropout": 0.02,
    "activation_dropout": 0.03,
    "dropout_input": 0.04,
    "final_dropout": 0.05,
    "layerdrop": 0.06,
    "mask_prob": 0.7,
    "mask_length": 4,
    "mask_channel_prob": 0.25,
    "mask_channel_length": 2,
    "feature_grad_mult": 0.0,
    # Mere defaults, as fine-tuned files have them: they do not describe the encoder.
    "encoder_embed_dim": 768,
    "conv_feature_layers": "[(512, 10, 5)]",
}


def make_weights(
    stage: str, *, norm: str = "layer_norm", bias: bool = True, hidden: int = HIDDEN, seed: int = 0
) -> dict[str, Tensor]:
    """Random weights under fairseq's keys; as the original, without a projection where the widths agree."""
    shapes: dict[str, tuple[int, ...]] = {"mask_emb": (hidden,)}
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        conv = f"feature_extractor.conv_layers.{i}"
        shapes[f"{conv}.0.weight"] = (8, 8 if i else 1, kernel)
        if bias:
            shapes[f"{conv}.0.bias"] = (8,)
        if norm == "layer_norm" or i == 0:
            place = f"{conv}.2.1" if norm == "layer_norm" else f"{conv}.2"
            shapes |= {f"{place}.weight": (8,), f"{place}.bias": (8,)}
    shapes |= linear("layer_norm", 8) | (linear("post_extract_proj", hidden, 8) if hidden != 8 else {})
    shapes |= {"encoder.pos_conv.0.bias": (hidden,), "encoder.pos_conv.0.weight_g": (1, 1, 6)}
    shapes["encoder.pos_conv.0.weight_v"] = (hidden, hidden // 2, 6)
    for i in range(2):
        layer = f"encoder.layers.{i}"
        for name in ("q", "k", "v", "out"):
            shapes |= linear(f"{layer}.self_attn.{name}_proj", hidden, hidden)
        shapes |= linear(f"{layer}.self_attn_layer_norm", hidden) | linear(
            f"{layer}.final_layer_norm", hidden
        )
        shapes |= linear(f"{layer}.fc1", INNER, hidden) | linear(f"{layer}.fc2", hidden, INNER)
    shapes |= linear("encoder.layer_norm", hidden)
    shapes["quantizer.vars"] = (1, GROUPS * ENTRIES, CODE_DIM // GROUPS)
    shapes |= linear("quantizer.weight_proj", GROUPS * ENTRIES, 8)
    shapes |= linear("project_q", CODE_DIM, CODE_DIM) | linear("final_proj", hidden, CODE_DIM)
    if stage != "continued":
        shapes = {f"w2v_encoder.w2v_model.{name}": shape for name, shape in shapes.items()}
        shapes |= linear("w2v_encoder.proj", NUM_CLASSES, hidden)
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (name, torch.randn(shape, generator=generator) * 0.3) for name, shape in shapes.items()
    )


def linear(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """The weight and the bias of a linear layer or of a norm."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def flat_args(stage: str, **changes: Any) -> argparse.Namespace:
    """Settings in the oldest container."""
    arch = {"labelled": "wav2vec_mtls1", "continued": "wav2vec2", "fine-tuned": "wav2vec_ctc"}[stage]
    options = PRETRAINING | OF_THE_CRITERION
    if stage == "fine-tuned":
        options = FINE_TUNING | {"w2v_args": argparse.Namespace(arch="wav2vec_mtls1", **PRETRAINING)}
    return argparse.Namespace(**({"arch": arch} | options | OF_THE_TASK | changes))


def nested_cfg(stage: str) -> dict[str, Any]:
    """Settings in nested plain dictionaries."""
    if stage == "fine-tuned":
        inner = {"_name": "unispeech", **PRETRAINING}
        model = {"_name": "wav2vec_ctc", **FINE_TUNING, "w2v_args": {"model": inner, "task": OF_THE_TASK}}
        return {
            "common": {"seed": 1},
            "task": OF_THE_TASK,
            "model": model,
            "criterion": {"zero_infinity": True},
        }
    name = "unispeech" if stage == "labelled" else "wav2vec2"
    model = {"_name": name, **PRETRAINING}
    return {"common": {"seed": 1}, "task": OF_THE_TASK, "model": model, "criterion": OF_THE_CRITERION}


@contextmanager
def fake_omegaconf() -> Iterator[types.SimpleNamespace]:
    """Classes under the names of omegaconf and fairseq.

    Yields:
        The classes; they pickle as the original's do while the context lasts.
    """

    def made(module: str, name: str, base: type = object) -> type:
        owner = sys.modules.setdefault(module, types.ModuleType(module))
        made_class = type(name, (base,), {"__module__": module, "__qualname__": name})
        setattr(owner, name, made_class)
        return made_class

    modules = (
        "omegaconf",
        "omegaconf.dictconfig",
        "omegaconf.listconfig",
        "omegaconf.nodes",
        "omegaconf.base",
    )
    modules += ("fairseq", "fairseq.dataclass", "fairseq.dataclass.constants", "fairseq.dataclass.configs")
    assert not any(module in sys.modules for module in modules)
    for module in modules:
        sys.modules[module] = types.ModuleType(module)
    try:
        choice = enum.Enum("Choice", {"default": "default", "layer_norm": "layer_norm"})
        choice.__module__, choice.__qualname__ = "fairseq.dataclass.constants", "Choice"
        sys.modules[choice.__module__].Choice = choice  # type: ignore[attr-defined]
        yield types.SimpleNamespace(
            DictConfig=made("omegaconf.dictconfig", "DictConfig"),
            ListConfig=made("omegaconf.listconfig", "ListConfig"),
            AnyNode=made("omegaconf.nodes", "AnyNode"),
            Metadata=made("omegaconf.base", "ContainerMetadata"),
            CommonConfig=made("fairseq.dataclass.configs", "CommonConfig"),
            Choice=choice,
        )
    finally:
        for module in modules:
            del sys.modules[module]


def as_omegaconf(value: Any, classes: types.SimpleNamespace, parent: Any = None) -> Any:
    """Plain containers as omegaconf keeps them: nodes with parents and metadata."""
    kinds = {dict: classes.DictConfig, list: classes.ListConfig, tuple: classes.ListConfig}
    node = kinds.get(type(value), classes.AnyNode)()
    metadata = classes.Metadata()
    vars(metadata).update(
        ref_type=Hint(), object_type=classes.CommonConfig, optional=True, flags=defaultdict(dict)
    )
    vars(node).update(_metadata=metadata, _parent=parent)
    if isinstance(value, dict):
        node._content = {key: as_omegaconf(item, classes, node) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        node._content = [as_omegaconf(item, classes, node) for item in value]
    else:
        node._val = classes.Choice(value) if value == "layer_norm" else value
    return node


def save_fairseq(
    path: Path, stage: str, container: str, *, legacy: bool = False, **changes: Any
) -> dict[str, Tensor]:
    """Write a checkpoint and give its weights back."""
    weights = changes.pop("weights", None) or make_weights(stage)
    content: dict[str, Any] = {
        "model": weights,
        "optimizer_history": [{"criterion_name": "wav2vec_mtl", "num_updates": 3}],
        "extra_state": {"train_iterator": {"epoch": 1}, "counts": defaultdict(int, a=1), "seen": {1, 2}},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(4)}}},
    }
    if container == "args":
        content |= {"args": flat_args(stage, **changes), "cfg": None}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    elif container == "cfg":
        content |= {"args": None, "cfg": nested_cfg(stage)}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    else:
        with fake_omegaconf() as classes:
            cfg = nested_cfg(stage)
            cfg["common"]["dropout"] = cfg["model"]["dropout"]
            cfg["model"] |= {"dropout": "${common.dropout}", "unset": "???"}
            content |= {"args": None, "cfg": as_omegaconf(cfg, classes)}
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return weights
