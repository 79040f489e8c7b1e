"""The engine `transformers`: a model in this process's memory. All four decodings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.log import Answer
from ecellm.evaluate.requests import Request
from ecellm.model.choose import Likelihood, best, expected_order
from ecellm.model.generate import Generator, Question
from ecellm.tasks.ranking import WORTH

MOST_SHARES = 24
"""Possible answers whose probabilities are kept with an answer."""
DIGITS = 4
"""Of a probability that is kept: further ones depend on what shared a forward pass."""


class Local:
    """An engine around a `Generator`."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Scored ones first, then generated ones."""
        scored = [request for request in requests if request.decoding == "choice"]
        free = [request for request in requests if request.decoding != "choice"]
        found = self.generator.score([r.prompt_ids for r in scored], [r.form.tokens for r in scored])
        for index, likely in found:
            yield chosen(scored[index], likely)
        questions = [
            Question(prompt=r.prompt_ids, limit=r.max_new_tokens, seed=r.seed, grammar=r.form.grammar) for r in free
        ]
        for index, reply in self.generator.answer(questions):
            yield Answer(
                key=free[index].key, text=reply.text, tokens=reply.tokens, finish_reason=reply.finish_reason
            )  # fmt: skip

    def facts(self) -> Facts:
        """Prompt tokens, and how many were computed."""
        return Facts(self.generator.way, *self.generator.prompt_tokens)


def chosen(request: Request, likely: Sequence[Likelihood]) -> Answer:
    """The answer that scores best: by mean log-likelihood, or of orders the one with the highest expected gain."""
    form = request.form
    if form.ranked:
        shares = [one.stepwise for one in likely]
        order = expected_order([text.split(",") for text in form.options], shares, WORTH)
        text = ",".join(order)
    else:
        shares = [one.share for one in likely]
        text = form.options[best(likely)]
    kept = {option: round(share, DIGITS) for option, share in zip(form.options, shares, strict=True)}
    return Answer(
        key=request.key, text=text, tokens=0, finish_reason="choice", shares=kept if len(kept) <= MOST_SHARES else None
    )  # fmt: skip
