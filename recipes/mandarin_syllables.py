"""Write a manifest of the Mandarin syllables of gcin-voice: 1,200 of them, each said by one or two people.

    apt install gcin-voice
    python recipes/mandarin_syllables.py /usr/share/gcin-voice/ogg -o data/syllables
    unispeech prepare data/syllables/manifest.jsonl -o data/multi/syllables --g2p espeak

The folders are named in Zhuyin, whose pinyin is what espeak-ng reads. Licences: 3.ogg (Edward Der-Hua Liu)
GPL-3 or LGPL-3, 5.ogg (ChionMeilin, with the voice of Chu Lo) CC BY 3.0.
"""

import argparse
import json
import sys
from pathlib import Path

INITIALS = {
    "ㄅ": "b", "ㄆ": "p", "ㄇ": "m", "ㄈ": "f", "ㄉ": "d", "ㄊ": "t", "ㄋ": "n",
    "ㄌ": "l", "ㄍ": "g", "ㄎ": "k", "ㄏ": "h", "ㄐ": "j", "ㄑ": "q", "ㄒ": "x",
    "ㄓ": "zh", "ㄔ": "ch", "ㄕ": "sh", "ㄖ": "r", "ㄗ": "z", "ㄘ": "c", "ㄙ": "s",
}  # fmt: skip

FINALS = {
    "ㄚ": "a", "ㄛ": "o", "ㄜ": "e", "ㄞ": "ai", "ㄟ": "ei", "ㄠ": "ao", "ㄡ": "ou", "ㄢ": "an", "ㄣ": "en",
    "ㄤ": "ang", "ㄥ": "eng", "ㄦ": "er", "ㄧ": "i", "ㄧㄚ": "ia", "ㄧㄝ": "ie", "ㄧㄠ": "iao", "ㄧㄡ": "iu",
    "ㄧㄢ": "ian", "ㄧㄣ": "in", "ㄧㄤ": "iang", "ㄧㄥ": "ing", "ㄨ": "u", "ㄨㄚ": "ua", "ㄨㄛ": "uo",
    "ㄨㄞ": "uai", "ㄨㄟ": "ui", "ㄨㄢ": "uan", "ㄨㄣ": "un", "ㄨㄤ": "uang", "ㄨㄥ": "ong",
    "ㄩ": "ü", "ㄩㄝ": "üe", "ㄩㄢ": "üan", "ㄩㄣ": "ün", "ㄩㄥ": "iong", "": "i",
}  # fmt: skip
"""Behind an initial; nothing is the vowel of zhi and zi."""

ALONE = {
    "i": "yi", "ia": "ya", "ie": "ye", "iao": "yao", "iu": "you", "ian": "yan", "in": "yin", "iang": "yang",
    "ing": "ying", "u": "wu", "ua": "wa", "uo": "wo", "uai": "wai", "ui": "wei", "uan": "wan", "un": "wen",
    "uang": "wang", "ong": "weng", "ü": "yu", "üe": "yue", "üan": "yuan", "ün": "yun", "iong": "yong",
}  # fmt: skip
"""Finals without an initial, where pinyin writes them in another way."""


def main() -> None:
    """Write the manifest, which names the recordings where they are."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recordings", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    lines, unread = [], []
    for path in sorted(arguments.recordings.absolute().glob("*/*.ogg")):
        text = pinyin(path.parent.name)
        if text is None:
            unread.append(path.parent.name)
            continue
        speaker = f"gcin-{path.stem}"
        entry = {"id": f"{speaker}-{text.replace('ü', 'v')}", "audio": str(path), "text": text}
        lines.append(json.dumps(entry | {"language": "cmn", "speaker": speaker}, ensure_ascii=False) + "\n")
    if not lines:
        sys.exit(f"{arguments.recordings}: no SYLLABLE/NUMBER.ogg whose name is Zhuyin")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} recordings; not read: {', '.join(sorted(set(unread))) or 'none'}", file=sys.stderr)


def pinyin(zhuyin: str) -> str | None:
    """Pinyin with the number of its tone, of Zhuyin with gcin's; None for what pinyin does not write.

    gcin writes no number behind the first tone, and 1 behind the neutral one.
    """
    tone = zhuyin[-1] if zhuyin[-1].isdigit() else ""
    letters = zhuyin.removesuffix(tone)
    initial = INITIALS.get(letters[:1], "")
    final = FINALS.get(letters[1:] if initial else letters or "-")
    if final is None or (initial and not letters[1:] and letters not in "ㄓㄔㄕㄖㄗㄘㄙ"):
        return None
    number = {"": "1", "1": "5"}.get(tone, tone)
    if not initial:
        return ALONE.get(final, final) + number
    if initial in "jqx":
        final = final.replace("ü", "u")
    return initial + final + number


if __name__ == "__main__":
    main()
