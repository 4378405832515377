"""Our model family beside transformers', in one run: interleaved, medians, ratios.

    python benchmarks/models.py [--size tiny|base|large] [--seconds 10] [--repeats 5] [--part forward]

Prints a table of medians in milliseconds and the ratio theirs / ours (above 1: ours is faster), the pairs
taken in turn so that a drift of the machine's speed touches both alike. transformers' classes are the peer.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import transformers
from transformers.models.unispeech import modeling_unispeech as theirs
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

import unispeech
from unispeech.configuration import LARGE
from unispeech.masking import sample_negatives, sample_spans

SIZES = {
    "tiny": dict(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024),
    "base": {},
    "large": LARGE,
}
CLASSES = ["Model", "ForCTC", "ForSequenceClassification", "ForPreTraining"]


def race(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Time two functions in turn.

    Returns:
        Median milliseconds of ours and of the peer, and the median of the pairwise ratios peer / ours.
    """
    ours(), peer()
    pairs = []
    for _ in range(repeats):
        marks = [time.perf_counter()]
        for function in (ours, peer):
            function()
            marks.append(time.perf_counter())
        pairs.append((marks[1] - marks[0], marks[2] - marks[1]))
    return (
        1e3 * statistics.median(a for a, _ in pairs),
        1e3 * statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def report(name: str, result: tuple[float, float, float], note: str = "") -> None:
    print(f"| {name} | {result[0]:.1f} | {result[1]:.1f} | {result[2]:.2f} | {note} |", flush=True)


def quantizers(repeats: int) -> None:
    """2 x 320 codes, 768 dimensions, 1,000 frames, as released."""
    settings = dict(codevector_dim=768, num_codevector_groups=2, num_codevectors_per_group=320)
    torch.manual_seed(0)
    peer = theirs.UniSpeechGumbelVectorQuantizer(transformers.UniSpeechConfig(**settings))
    torch.nn.init.uniform_(peer.codevectors)
    ours = unispeech.UniSpeechForPreTraining(
        unispeech.UniSpeechConfig(**settings, num_hidden_layers=0)
    ).quantizer
    ours.load_state_dict(peer.state_dict())
    latents = torch.randn(1, 1000, 512)

    def run(quantizer: torch.nn.Module, training: bool) -> list[torch.Tensor]:
        quantizer.train(training).zero_grad()
        torch.manual_seed(1)
        made = quantizer(latents)
        codevectors = made[0] if isinstance(made, tuple) else made.codevectors
        if training:
            codevectors.square().sum().backward()
        return [codevectors.detach()]

    for training in (True, False):
        mode = "training, forward and backward" if training else "evaluation"
        result = race(lambda: run(ours, training), lambda: run(peer, training), repeats)
        difference = (run(ours, training)[0] - run(peer, training)[0]).abs().max().item()
        report(f"quantizer, {mode}", result, f"largest difference {difference:g}")


def masks(repeats: int) -> None:
    """Time masks of 32 x 1500 frames, and 100 negatives for each masked frame of 8 x 750."""
    lengths = torch.full((32,), 1500)
    report(
        "time masks, 32 x 1500",
        race(
            lambda: sample_spans(lengths, 1500, prob=0.65, span_length=10, min_spans=2),
            lambda: torch.from_numpy(_compute_mask_indices((32, 1500), 0.65, 10, min_masks=2)),
            repeats,
        ),
    )
    is_masked = sample_spans(torch.full((8,), 750), 750, prob=0.65, span_length=10)
    report(
        "negatives, 100 for 8 x 750",
        race(
            lambda: sample_negatives(is_masked, is_masked, 100),
            lambda: torch.from_numpy(_sample_negative_indices((8, 750), 100, np.asarray(is_masked))),
            repeats,
        ),
    )


def forwards(size: str, seconds: float, repeats: int) -> None:
    """Evaluation, float32, one utterance alone and two padded with an attention mask."""
    samples = int(16_000 * seconds)
    waveforms = torch.randn(2, samples)
    mask = torch.ones(2, samples, dtype=torch.long)
    mask[1, samples // 2 :] = 0
    waveforms = waveforms * mask
    for name in CLASSES:
        torch.manual_seed(0)
        peer = getattr(transformers, "UniSpeech" + name)(transformers.UniSpeechConfig(**SIZES[size])).eval()
        ours = getattr(unispeech, "UniSpeech" + name)(unispeech.UniSpeechConfig(**SIZES[size])).eval()
        ours.load_state_dict(peer.state_dict())
        with torch.inference_mode():
            one = waveforms[:1]
            report(f"{name}, one of {seconds:g} s", race(lambda: ours(one), lambda: peer(one), repeats))
            report(
                f"{name}, {seconds:g} and {seconds / 2:g} s padded",
                race(lambda: ours(waveforms, mask), lambda: peer(waveforms, mask), repeats),
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=["quantizer", "masks", "forward"], action="append")
    arguments = parser.parse_args()
    parts = arguments.part or ["quantizer", "masks", "forward"]
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"unispeech {unispeech.__version__}, {torch.get_num_threads()} threads, size {arguments.size}, "
        f"median of {arguments.repeats}\n"
    )
    print("| work | ours, ms | transformers, ms | ratio | note |\n|---|---|---|---|---|")
    if "quantizer" in parts:
        quantizers(arguments.repeats)
    if "masks" in parts:
        masks(arguments.repeats)
    if "forward" in parts:
        forwards(arguments.size, arguments.seconds, arguments.repeats)


if __name__ == "__main__":
    main()
