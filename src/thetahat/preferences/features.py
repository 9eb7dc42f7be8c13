"""Words: what a text says, as numbers with names: how often each of the frequent words occurs, and how
long it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import BadArgument, EmptyData
from .pairs import Pairs

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\?|!")


class Words:
    """Features of a text that can be read: log(1 + n_w) of each word w, and the length in hundreds of words.

    `names` are "word …" for each, and "length".

    Parameters
    ----------
    words
        those that are counted, in lower case; "?" and "!" are words

    Examples
    --------
    >>> words = Words(["yes", "no", "!"])
    >>> words.names, np.exp(words(["No, no! It’s not."])[0, :3]).round(6).tolist()
    (['word yes', 'word no', 'word !', 'length'], [1.0, 3.0, 2.0])
    """

    def __init__(self, words: Sequence[str]):
        self.words = [str(word) for word in words]
        self._place = {word: i for i, word in enumerate(self.words)}
        if len(self._place) != len(self.words):
            raise BadArgument("words= names a word twice.")
        self.names = [*(f"word {word}" for word in self.words), "length"]

    @classmethod
    def of(cls, texts: Pairs | Iterable[str], many: int = 100) -> Words:
        """The words that the most texts have (of pairs: the most answers), the most frequent first.

        Raises
        ------
        EmptyData
            no text has a word
        """
        if isinstance(texts, Pairs):
            texts = [str(answer) for pair in texts for answer in (pair.chosen, pair.rejected)]
        seen = Counter(word for text in texts for word in sorted(set(_cut(text))))
        if not seen:
            raise EmptyData("the texts have no words to be counted.")
        return cls([word for word, _ in seen.most_common(many)])

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) features of n texts."""
        out = np.zeros((len(texts), len(self.names)))
        for row, text in zip(out, texts, strict=True):
            found = _cut(text)
            for word in found:
                if word in self._place:
                    row[self._place[word]] += 1
            row[-1] = sum(word not in "?!" for word in found) / 100
        out[:, :-1] = np.log1p(out[:, :-1])
        return out


def _cut(text: str) -> list[str]:
    return [word.replace("’", "'") for word in WORD.findall(text.lower())]
