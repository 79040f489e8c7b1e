"""Grammars for `constrained` decoding: which tokens may come next, by llguidance. The only place that knows it.

Grammars are texts in its Lark-like language and come from the tasks. The one decision: an answer that runs into its
limit is cut off like any other and counted; the grammar does not bend what is said to make it shorter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ecellm.errors import ConfigError


class Grammars:
    """Makes guides for one tokenizer and one model's vocabulary.

    Raises ConfigError where the tokenizer is not one of the `tokenizers` library.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, end_ids: frozenset[int]) -> None:
        from llguidance.hf import from_tokenizer

        try:
            self._tokenizer: Any = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(end_ids))
        except ValueError as error:
            raise ConfigError(
                "evaluate.decoding: constrained does not work with this tokenizer",
                found=str(error).partition("\n")[0], expected="a fast tokenizer", mend="use greedy",
            ) from error  # fmt: skip
        self._end_ids = sorted(end_ids)

    def guide(self, grammar: str) -> GrammarGuide:
        """A fresh guide. Raises ConfigError where the grammar is wrong."""
        from llguidance import LLMatcher

        matcher: Any = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0)
        if matcher.is_error():
            raise ConfigError("a task's grammar is wrong", found=matcher.get_error(), mend="report this, please")
        return GrammarGuide(matcher, self._end_ids)


class GrammarGuide:
    """One answer's way through a grammar."""

    def __init__(self, matcher: Any, end_ids: list[int]) -> None:
        self._matcher, self._end_ids = matcher, end_ids

    def allowed(self) -> Tensor:
        """[vocab] bool."""
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) > 0
        if self._matcher.is_accepting():
            mask[self._end_ids] = True
        return mask

    def advance(self, token: int) -> None:
        """The token was chosen."""
        self._matcher.consume_token(token)
