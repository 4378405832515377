"""The files of a model directory."""

WEIGHTS = (
    "model*.safetensors",
    "model*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
)
"""Patterns of weight files; what an older save has of them, a newer one never keeps."""
