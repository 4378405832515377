"""Hypothesis strategies for transcripts with the oddest symbols and times that can be."""

from itertools import pairwise

from hypothesis import strategies as st

from unispeech.results import Phone, Transcript, Word

ODD = ['"', '""', "'", "<", "</i>", "&", "&lt;", "-->", "{", "\\", "]]>", "\u200b", "\u0361", "t͡ʃʰ", "˥˩"]
ODDER = [" ", "\u00a0", "\t", "\n", "\r\n", "\u2028", "\x85", "\x00", "\ufffe", "\ud800", "", ";;", "1", "#"]

symbols = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
odder_symbols = symbols | st.sampled_from(ODDER)
scores = st.integers(0, 10**4).map(lambda n: n / 10**4)


@st.composite
def transcripts(draw, symbols=odder_symbols, ticks_per_second=10**5):
    """Phones in the order of time that do not overlap; some touch, some are empty, words join some."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from([0, 1, 49, 50, 2000, 40_000]), st.sampled_from([0, 1, 2000])),
            max_size=8,
        )
    )
    edges, now = [], draw(st.sampled_from([0, 0, 3, 100, 10**9]))
    for gap, length in steps:
        edges.append(((now + gap) / ticks_per_second, (now + gap + length) / ticks_per_second))
        now += gap + length
    phones = [Phone(phone=draw(symbols), start=a, end=b, score=draw(scores)) for a, b in edges]
    words = None
    if draw(st.booleans()):
        cuts = draw(st.sets(st.integers(0, len(phones))))
        groups = [phones[i:j] for i, j in pairwise(sorted({0, *cuts, len(phones)})) if i < j]
        words = [
            Word(word="".join(p.phone for p in group), start=group[0].start, end=group[-1].end, score=0.5)
            for group in groups
        ]
    return Transcript(
        audio=draw(st.sampled_from(["", "-", "dir/a b.wav", ";;c.flac", 'ä"<&.wav'])),
        duration=(now + draw(st.sampled_from([0, 1, 10**5]))) / ticks_per_second,
        text=" ".join(phone.phone for phone in phones),
        phones=phones,
        words=words,
    )
