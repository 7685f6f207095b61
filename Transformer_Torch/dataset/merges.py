"""BPE-dropout (Provilkov et al., 2020, arXiv:1910.13267): words cut into subwords, of whose merges
some are left out by chance, so that a word is read in other parts every time.

sentencepiece can do so too, but some of its versions draw other chances in every process.
"""

from collections.abc import Iterable, Iterator

import numpy

from .tokenizers import UNKNOWN

NEVER = float("-inf")  # the score of neighbours that do not come together
LONG = 40  # characters of a word that hardly comes again: a sentence without spaces, a link
MOST = 8_000_000  # parts of the states that are kept: some 300 MB


class State:
    """A word in parts, between two merges: the next is that of the neighbours number `place` and
    `place` + 1, or of none (None). `joined` and `apart` are what comes of it, once that is known:
    if they come together, and if that is left out."""

    __slots__ = ("parts", "scores", "place", "numbers", "joined", "apart")

    def __init__(self, parts: tuple[str, ...], scores: tuple[float, ...]):
        self.parts, self.scores = parts, scores  # n parts, n - 1 scores of neighbours
        best = max(scores, default=NEVER)
        self.place = scores.index(best) if best > NEVER else None
        self.numbers = self.joined = self.apart = None


class Merges:
    """Byte-pair encoding as sentencepiece does it. Of all neighbours that are a piece together,
    those with the best score come together first, and of equal ones the first; then the next.

    `numbers` and `scores` are those of each piece. A merge that is left out is so until one of
    its two parts has become another. States are kept, each by the one before it: most words come
    again and again.
    """

    def __init__(self, numbers: dict[str, int], scores: dict[str, float]):
        self.numbers, self.scores = numbers, scores
        self.words: dict[str, State] = {}
        self.kept = 0

    def encode(self, texts: Iterable[str], dropout: float, seed: int) -> list[list[int]]:
        """The pieces of each text, each merge left out with probability `dropout`; words stand
        between spaces. It depends on nothing but the arguments."""
        left_out = chances(dropout, seed)
        return [self.encode_one(text, left_out) for text in texts]

    def encode_one(self, text: str, left_out: Iterator[bool]) -> list[int]:
        tokens: list[int] = []
        for word in filter(None, text.split(" ")):
            state = self.words.get(word) or self.begin(word)
            while state.place is not None:
                if next(left_out):
                    state = state.apart or self.leave_out(state)
                else:
                    state = state.joined or self.join(state)
            tokens += state.numbers
        return tokens

    def begin(self, word: str) -> State:
        """Its characters, after the mark of a space."""
        parts = ("▁", *word)
        scores = tuple(self.score(*pair) for pair in zip(parts, parts[1:], strict=False))
        state = self.finish(State(parts, scores))
        if self.kept > MOST:
            self.words, self.kept = {}, 0
        if len(word) <= LONG:
            self.words[word] = state
        return state

    def join(self, state: State) -> State:
        i, parts, scores = state.place, state.parts, state.scores
        part = parts[i] + parts[i + 1]
        left = (*scores[: i - 1], self.score(parts[i - 1], part)) if i else ()
        right = ()
        if i + 2 < len(parts):
            right = (self.score(part, parts[i + 2]), *scores[i + 2 :])
        state.joined = self.finish(State((*parts[:i], part, *parts[i + 2 :]), left + right))
        return state.joined

    def leave_out(self, state: State) -> State:
        scores = (*state.scores[: state.place], NEVER, *state.scores[state.place + 1 :])
        state.apart = self.finish(State(state.parts, scores))
        return state.apart

    def score(self, left: str, right: str) -> float:
        return self.scores.get(left + right, NEVER)

    def finish(self, state: State) -> State:
        """With the numbers of its parts, if there are no more merges."""
        if len(state.parts) <= LONG + 1:
            self.kept += len(state.parts)
        if state.place is None:
            numbers = [self.numbers.get(part, UNKNOWN) for part in state.parts]
            state.numbers = [  # unknown characters side by side are one token
                n for n, before in zip(numbers, [None, *numbers], strict=False)
                if n != UNKNOWN or before != UNKNOWN
            ]  # fmt: skip
        return state


def chances(p: float, seed: int) -> Iterator[bool]:
    """True with probability p, without end."""
    generator = numpy.random.default_rng(seed)
    while True:
        yield from (generator.random(2**16) < p).tolist()
