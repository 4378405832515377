"""Average the weights of checkpoints that went on from one another: often better than each of them.

    python recipes/average.py runs/multi-h/best runs/multi-i/best -o runs/multi-hi

Wortsman et al. 2022, Model soups (arXiv:2203.05482).
"""

import argparse
from pathlib import Path

import torch

from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.text import Vocabulary


def main() -> None:
    """Read, average, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    models = [load_model(source, head="ctc", dtype=torch.float32) for source in arguments.sources]
    average, states = models[0], [model.state_dict() for model in models]
    if len({str([(name, value.shape) for name, value in state.items()]) for state in states}) > 1:
        parser.error("the checkpoints must have the same weights, but their names or shapes differ.")
    average.load_state_dict({
        name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]
    })
    save_model(average, arguments.output, Vocabulary.load(arguments.sources[0]))


if __name__ == "__main__":
    main()
