"""How far phones are from one another, by the features of their articulation (panphon: `inventory`)."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from panphon.distance import Distance


def nearest_phones(
    phones: Sequence[str], inventory: Sequence[str], *, required: Sequence[str] = ()
) -> dict[str, str]:
    """Find the phone of an inventory that is articulated most like another one.

    The measure is panphon's weighted feature edit distance, which compares diphthongs and affricates with
    single sounds too; ties are broken by the unweighted one, then by the number of signs that differ,
    then by the order of the inventory.

    Args:
        phones: IPA symbols.
        inventory: IPA symbols to choose from.
        required: Symbols of the inventory that must have features.

    Returns:
        Phone -> the nearest; phones without features are left out.

    Raises:
        ImportError: If panphon is not installed.
        ValueError: If one of `required` has no features.

    Source:
        Mortensen et al. 2016, PanPhon: A Resource for Mapping IPA Segments to Articulatory Feature Vectors.
    """
    distance = _distance()
    known = [phone for phone in inventory if _has_features(distance, phone)]
    lost = [phone for phone in required if phone not in known]
    if lost:
        raise ValueError(
            f"`inventory` must hold IPA symbols that the model can reach, but holds "
            f"{', '.join(map(repr, lost[:10]))}, which it does not write and which have no articulatory "
            "features; take them out."
        )

    def key(phone: str, other: str) -> tuple[float, float, int]:
        return (
            float(distance.weighted_feature_edit_distance(phone, other)),
            float(distance.feature_edit_distance(phone, other)),
            len(set(phone) ^ set(other)),
        )

    return {
        phone: min(known, key=lambda other: key(phone, other))
        for phone in phones
        if known and _has_features(distance, phone)
    }


def _has_features(distance: "Distance", phone: str) -> bool:
    """Whether panphon reads the whole of a symbol, not only a part of it."""
    return "".join(distance.fm.ipa_segs(phone)) == phone


@cache
def _distance() -> "Distance":
    """Panphon's measure; reading its tables takes some seconds."""
    try:
        from panphon.distance import Distance
    except ImportError as error:
        raise ImportError(
            "mapping to an inventory needs panphon, which is not installed; pip install "
            "'unispeech[inventory]', or choose the mode mask."
        ) from error
    return Distance()
