"""Give a checkpoint more layers without changing what it says.

    python recipes/deeper.py examples/checkpoint runs/multi-deep --layers 8

New layers stand between the old ones, evenly. Behind layer norm a layer adds what its attention and its
feed-forward part write; where both output matrices are zero it adds nothing, and learns to add something. So
a small network that has been trained for long goes on as a larger one.
"""

import argparse
from pathlib import Path

import torch

from unispeech import UniSpeechForCTC
from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.text import Vocabulary


def main() -> None:
    """Read, insert, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, required=True, help="layers of the new network")
    arguments = parser.parse_args()
    old = load_model(arguments.source, head="ctc", dtype=torch.float32)
    if not old.config.do_stable_layer_norm:
        parser.error("the layers must begin with layer norm (do_stable_layer_norm), but end with it.")
    if arguments.layers <= old.config.num_hidden_layers:
        parser.error(f"`--layers` must be above {old.config.num_hidden_layers}, but is {arguments.layers}.")
    torch.manual_seed(0)
    save_model(deepened(old, arguments.layers), arguments.output, Vocabulary.load(arguments.source))


def deepened(old: UniSpeechForCTC, num_layers: int) -> UniSpeechForCTC:
    """A copy with more layers and the same outputs."""
    config = type(old.config).from_dict(old.config.to_dict() | {"num_hidden_layers": num_layers})
    new = UniSpeechForCTC(config)
    num_old = old.config.num_hidden_layers
    places = {round(index * num_layers / num_old): index for index in range(num_old)}
    weights = {name: value for name, value in old.state_dict().items() if ".encoder.layers." not in name}
    new.load_state_dict(weights, strict=False)
    for place, layer in enumerate(new.unispeech.encoder.layers):
        if place in places:
            layer.load_state_dict(old.unispeech.encoder.layers[places[place]].state_dict())
        else:
            for linear in (layer.attention.out_proj, layer.feed_forward.output_dense):
                torch.nn.init.zeros_(linear.weight)
                torch.nn.init.zeros_(linear.bias)
    return new


if __name__ == "__main__":
    main()
