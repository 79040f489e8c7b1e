"""One row to token ids: the only way from text to tokens, for training and for evaluation.

The one decision: the answer's tokens are those that follow the prompt when both are tokenised together, wherever the
prompt alone gives the same beginning (spec C.4); where it does not, the answer is tokenised by itself, so that the
boundary is exact. Too long a sample loses words of its input, never of its answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ecellm.errors import DataError
from ecellm.prompt import PromptPolicy
from ecellm.records import Row
from ecellm.tasks.registry import task
from ecellm.tasks.template import SEPARATOR


class TooLong(DataError):
    """A row does not fit even with its input cut down: leave it out, and count it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample as token ids."""

    prompt_ids: list[int]
    answer_ids: list[int]
    """With the end token."""
    cut: bool
    """Whether its input lost words."""


class Encoder:
    """Rows to tokens with one tokenizer and one policy.

    Args:
        tokenizer: a transformers tokenizer.
        policy: template and longest length.
        encoder_decoder: the prompt goes into an encoder, so prompt and answer each have the whole length.
    """

    def __init__(self, tokenizer: Any, policy: PromptPolicy, *, encoder_decoder: bool) -> None:
        self.tokenizer, self.policy, self.encoder_decoder = tokenizer, policy, encoder_decoder
        self.eos = int(tokenizer.eos_token_id)

    def prompt(self, row: Row) -> list[int]:
        """Prompt ids to generate from; its input is cut so that the task's longest answer still fits after it.

        Raises:
            TooLong: the prompt without its input is too long already.
        """
        limit = self.policy.max_length
        if not self.encoder_decoder:
            limit -= min(task(row.task).max_new_tokens, limit // 2)
        ids = self.ids(task(row.task).render(row, self.policy.template))
        return ids if len(ids) <= limit else self._shortened(row, limit)

    def sample(self, row: Row) -> Encoded:
        """Prompt ids and answer ids to learn from.

        Raises:
            TooLong: the answer, or prompt and answer without the input, are too long.
        """
        limit = self.policy.max_length
        text = task(row.task).render(row, self.policy.template)
        before = self.ids(text)
        answer = self._answer(text, before, row.output)
        if len(answer) >= limit:
            raise self._too_long(row, f"an answer of {len(answer)} tokens")
        room = limit if self.encoder_decoder else limit - len(answer)
        if len(before) <= room:
            return Encoded(prompt_ids=before, answer_ids=answer, cut=False)
        return Encoded(prompt_ids=self._shortened(row, room), answer_ids=answer, cut=True)

    def _shortened(self, row: Row, limit: int) -> list[int]:
        """Ids of the prompt with as many words of its input as `limit` tokens allow."""
        of = task(row.task)
        best: list[int] = []
        low, high = 0, len(row.input.split())
        while low <= high:
            words = (low + high) // 2
            shorter = replace(row, input=of.shorten(row.input, words))
            ids = self.ids(of.render(shorter, self.policy.template))
            if len(ids) <= limit:
                best, low = ids, words + 1
            else:
                high = words - 1
        if not best:
            raise self._too_long(row, f"{len(ids)} tokens with its input cut down, {limit} allowed")
        return best

    def option(self, text: str) -> list[int]:
        """Ids of a possible answer as they follow a prompt, without the end token.

        They do not depend on the prompt: what stands before an answer is always the template's last line.
        """
        before = SEPARATOR[self.policy.template] + "\n"
        ids = self._answer(before, self.ids(before), text)
        return ids[:-1]

    def ids(self, prompt: str) -> list[int]:
        """Ids of a prompt's text as it is."""
        ids: list[int] = self.tokenizer(prompt)["input_ids"]
        if not self.encoder_decoder and ids and ids[-1] == self.eos:
            return ids[:-1]
        return ids

    def _answer(self, prompt: str, before: list[int], answer: str) -> list[int]:
        """Ids of the answer and the end token; `before` are the ids of `prompt`."""
        ids: list[int] = []
        if self.encoder_decoder:
            ids = self.tokenizer(answer)["input_ids"]
        else:
            whole = self.ids(prompt + answer)
            if whole[: len(before)] == before:
                ids = whole[len(before) :]
            else:
                ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        return ids if ids and ids[-1] == self.eos else [*ids, self.eos]

    def _too_long(self, row: Row, found: str) -> TooLong:
        return TooLong(
            f"row {row.id} of {row.task} ({row.split}, {row.setting}) does not fit",
            found=found,
            expected=f"at most {self.policy.max_length} tokens of prompt and answer",
            mend="raise prepare.max_length, or build with shorter options and answers (build.max_words)",
        )
