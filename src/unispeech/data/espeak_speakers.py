"""Who speaks: espeak-ng's voice variants that are fit to learn from, and those kept for testing.

Chosen by measurement on twelve English sentences. Left out are whispers, croaks and robots; variants whose
phones a classifier trained on all others recognises least (zac, Alicia, kaukovalta, Marco, ian, Lee, shelby,
david); names with a space; and near-copies of another variant (klatt6 of adam, klatt5 of klatt4, edward2 of
benjamin, Henrique of Hugo, klatt2 of klatt; steph2 and steph3 of steph, who is kept for testing).
"""

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from unispeech.phones import nearest

TRAIN_VARIANTS = (
    "f1", "f2", "f3", "f5", "m1", "m2", "m4", "m5", "m6", "m7", "m8", "Alex", "Andy", "Annie",
    "AnxiousAndy", "Diogo", "Gene", "Gene2", "Hugo", "Jacky", "Mario", "Mike", "Nguyen", "Reed",
    "RicishayMax", "RicishayMax3", "adam", "anika", "antonio", "aunty", "belinda", "benjamin", "boris",
    "caleb", "ed", "edward", "grandpa", "gustave", "iven", "iven2", "iven4", "john", "klatt", "klatt3",
    "klatt4", "marcelo", "max", "michel", "miguel", "mike2", "norbert", "pablo", "pedro", "rob",
    "robert", "sandro", "travis",
)  # fmt: skip
"""The speakers of the main part."""

UNSEEN_VARIANTS = (
    "f4", "m3", "Andrea", "Denis", "Michael", "Storm", "grandma", "linda", "paul", "quincy", "steph",
    "victor",
)  # fmt: skip
"""The speakers of held-out parts; never to be trained on."""

_PITCHES = (30, 70)
_PITCH_RANGES = (30, 70)


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One synthetic person."""

    name: str
    """Name in the manifests, unique in a corpus."""
    voice: str
    """Language or voice of espeak-ng."""
    variant: str | None
    """Voice variant; None is the bare voice."""
    pitch: int
    """Habitual height of the voice, 0 to 99."""
    pitch_range: int
    """Liveliness, 0 to 99."""


def choose_speakers(
    choice: int | Sequence[str] | None,
    *,
    voice: str,
    defaults: Sequence[str],
    installed: Collection[str],
    seed: int,
) -> tuple[Speaker, ...]:
    """Make the speakers of a part.

    Args:
        choice: How many of `defaults`, in an order drawn from `seed`: beyond their number the same variants
            come again with another pitch. Or names: `variant`, or `voice+variant`. None takes all of
            `defaults`.
        voice: Voice of all that do not name one.
        defaults: Variants to choose from.
        installed: Variants that espeak-ng has; `defaults` that are not among them are passed over.
        seed: Where order and pitches come from.

    Returns:
        The speakers, each with a pitch of its own.

    Raises:
        ValueError: If there are none, a name is unknown, or one comes twice.
    """
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, but is {seed}.")
    known = [variant for variant in defaults if variant in installed]
    if choice is None:
        choice = len(known)
    if isinstance(choice, int):
        if choice < 1 or not known:
            raise ValueError(f"`speakers` must be at least 1, but is {choice if known else 0}.")
        order = [known[i] for i in np.random.default_rng([seed, 1]).permutation(len(known))]
        names = [_nth_name(order, i) for i in range(choice)]
        return tuple(_speaker(name, voice, name.split("-")[0], seed) for name in names)
    if not choice or len(set(choice)) < len(choice):
        raise ValueError(f"`speakers` must name each speaker once, but is {','.join(choice) or 'empty'}.")
    speakers = []
    for name in choice:
        head, _, variant = name.rpartition("+")
        if variant not in installed:
            advice = nearest(variant, installed)
            raise ValueError(f"`speakers` must be variants of espeak-ng, but hold {variant!r}{advice}")
        speakers.append(_speaker(name, head or voice, variant, seed))
    return tuple(speakers)


def _nth_name(order: Sequence[str], i: int) -> str:
    """Name the i-th speaker: a variant, or variant-2, variant-3 when all have been taken."""
    turn, place = divmod(i, len(order))
    return order[place] if turn == 0 else f"{order[place]}-{turn + 1}"


def _speaker(name: str, voice: str, variant: str, seed: int) -> Speaker:
    """Give a speaker the pitch that belongs to its name, whoever else is in the corpus."""
    rng = np.random.default_rng([seed, 2, zlib.crc32(name.encode())])
    pitch, pitch_range = (int(rng.integers(low, high + 1)) for low, high in (_PITCHES, _PITCH_RANGES))
    return Speaker(name=name, voice=voice, variant=variant, pitch=pitch, pitch_range=pitch_range)
