"""The engine `openai`: any OpenAI-compatible endpoint, through the `openai` library. The only place that knows it.

Many requests under way, at the pace that is allowed; what fails for a while is tried again, what fails for good is an
answer that says so. The one decision: every try that was billed is counted with the request that it was made for, those
whose reply could not be used too, so the bill is the sum over the log and survives any kill.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from ecellm.config.evaluation import Endpoint, NamedModel
from ecellm.errors import ClusterError, ConfigError, EcellmError
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.engines.pace import Pace, wait_before
from ecellm.evaluate.log import Answer
from ecellm.evaluate.requests import Request
from ecellm.model.decode import TEMPERATURE, TOP_P

BYTES_PER_TOKEN = 4
"""For estimates of a prompt's tokens, which only the endpoint knows."""
REFUSED = "refused"
_OF_THE_PROMPT = ("content_filter", "content_policy_violation", "context_length_exceeded", "string_above_max_length")
"""Codes of a bad request that are about this one prompt: the answer is that there is none."""


class Remote:
    """A model behind an endpoint.

    Args:
        model: its name there, and the endpoint.
        key: of the endpoint; empty: it is asked without one.
        spent: what it has cost already, in US dollars.
        separator: heading that ends a reply where the model writes it again.
        sleep, draw: waiting and its jitter.
    """

    def __init__(
        self,
        model: NamedModel,
        key: str,
        *,
        spent: float = 0.0,
        separator: str = "",
        sleep: Callable[[float], None] = time.sleep,
        draw: random.Random | None = None,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigError(
                f"evaluate.models: {model.name} needs the package openai", found=str(error),
                mend='pip install "ecellm[openai]"',
            ) from error  # fmt: skip
        self._openai: Any = openai
        self.model, self.separator = model, separator
        self.place: Endpoint = model.endpoint
        self._client: Any = openai.OpenAI(
            base_url=self.place.url, api_key=key or "none", max_retries=0, timeout=self.place.timeout_s
        )
        self._pace = Pace(self.place.requests_per_minute, self.place.tokens_per_minute, sleep=sleep)
        self._sleep, self._draw = sleep, draw or random.Random()
        self._lock = threading.Lock()
        self.spent = spent
        self._asked = 0
        self._limit = "max_tokens"
        """What the endpoint calls the most new tokens."""

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers as they come. What was under way when one failed for good is still handed out before its error.

        Raises ConfigError (no such model, no right to it, budget spent), ClusterError (no use in trying on).
        """
        failed: EcellmError | None = None
        queue = iter(requests)
        with ThreadPoolExecutor(max_workers=self.place.concurrency, thread_name_prefix="endpoint") as pool:
            under_way: set[Future[Answer]] = set()
            try:
                while True:
                    while failed is None and len(under_way) < self.place.concurrency:
                        if (request := next(queue, None)) is None:
                            break
                        under_way.add(pool.submit(self._one, request))
                    if not under_way:
                        break
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        try:
                            yield future.result()
                        except EcellmError as error:
                            failed = failed or error
            finally:
                for future in under_way:
                    future.cancel()
        if failed is not None:
            raise failed

    def facts(self) -> Facts:
        """Prompt tokens as billed; what is computed there is the endpoint's affair."""
        return Facts(f"endpoint, {self.place.concurrency} at once", self._asked, self._asked)

    def _one(self, request: Request) -> Answer:
        bill = {"prompt_tokens": 0.0, "answer_tokens": 0.0, "attempts": 0.0}
        estimate = len(request.prompt_ids) // BYTES_PER_TOKEN + request.max_new_tokens
        attempt = 0
        while attempt < self.place.attempts:
            self._within_budget()
            self._pace.wait(estimate)
            bill["attempts"] += 1
            sent_with = self._limit
            attempt += 1
            try:
                return self._read(request, self._send(request, sent_with), bill)
            except self._openai.APIStatusError as error:
                if self._renamed(error, sent_with):
                    attempt -= 1  # it says how to ask; that is no failure
                    trouble: Exception = error
                    continue
                if not self._passes(error):
                    return self._final(request, error, bill)
                trouble = error
            except (self._openai.APIConnectionError, self._openai.APIResponseValidationError, Malformed) as error:
                trouble = error
            except ValueError as error:  # a body that is no JSON
                trouble = error
            if attempt < self.place.attempts:
                self._sleep(wait_before(attempt, _retry_after(trouble), self._draw))
        raise ClusterError(
            f"{self.model.name}: {self.place.attempts} tries of one request failed",
            found=f"{type(trouble).__name__}: {str(trouble).partition(chr(10))[0][:200]}",
            expected=f"replies from {self.place.url}",
            mend="run the same command again later: it asks only what is missing; or raise endpoint.attempts",
        ) from trouble

    def _send(self, request: Request, limit: str) -> Any:
        text = bytes(request.prompt_ids).decode("utf-8")
        drawn = request.decoding == "paper"
        more: dict[str, Any] = {"temperature": TEMPERATURE if drawn else 0.0, limit: request.max_new_tokens}
        if drawn and request.seed is not None:
            more |= {"top_p": TOP_P, "seed": request.seed % 2**31}
        if self.place.api == "chat":
            messages = [{"role": "user", "content": text}]
            return self._client.chat.completions.create(model=self.model.model, messages=messages, **more)
        return self._client.completions.create(model=self.model.model, prompt=text, **more)

    def _read(self, request: Request, reply: Any, bill: dict[str, float]) -> Answer:
        """The answer in a reply; counts what it cost first. Raises Malformed."""
        usage = getattr(reply, "usage", None)
        for name, field in (("prompt_tokens", "prompt_tokens"), ("answer_tokens", "completion_tokens")):
            number = getattr(usage, field, 0)
            bill[name] += number if isinstance(number, int) and number > 0 else 0
        self._count(usage)
        choices = getattr(reply, "choices", None)
        first = choices[0] if isinstance(choices, list) and choices else None
        said = getattr(first, "text", None) if self.place.api == "completions" else None
        if self.place.api == "chat":
            said = getattr(getattr(first, "message", None), "content", None)
        reason = str(getattr(first, "finish_reason", None) or "stop")
        if said is None and (reason == "content_filter" or getattr(getattr(first, "message", None), "refusal", None)):
            return Answer(key=request.key, text="", tokens=0, finish_reason=f"{REFUSED}: content_filter", bill=bill)
        if not isinstance(said, str):
            raise Malformed(f"a reply without text: {str(reply)[:120]}")
        if self.separator:
            said = said.split(self.separator, 1)[0]
        return Answer(
            key=request.key, text=said.strip(), tokens=int(getattr(usage, "completion_tokens", 0) or 0),
            finish_reason=reason, bill=bill,
        )  # fmt: skip

    def _count(self, usage: Any) -> None:
        prompt, answer = (int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens"))
        with self._lock:
            self._asked += prompt
            self.spent += dollars(self.place, prompt, answer)

    def _within_budget(self) -> None:
        if self.place.budget_usd and self.spent >= self.place.budget_usd:
            raise ConfigError(
                f"evaluate.models: the budget of {self.model.name} is spent",
                found=f"{self.spent:.2f} US dollars",
                expected=f"less than endpoint.budget_usd = {self.place.budget_usd:g}",
                mend="raise it and run the same command again: it asks only what is missing",
            )

    def _renamed(self, error: Any, sent_with: str) -> bool:
        """Whether the endpoint only has another name for the most new tokens, which is used from now on."""
        if sent_with == "max_tokens" and int(error.status_code) == 400 and "max_completion_tokens" in str(error):
            self._limit = "max_completion_tokens"
            return True
        return False

    def _passes(self, error: Any) -> bool:
        """Whether a status is one that trying again may mend."""
        code = int(error.status_code)
        spent = "insufficient_quota" in str(getattr(error, "code", "") or "")
        return (code in (408, 409, 429) or code >= 500) and not spent

    def _final(self, request: Request, error: Any, bill: dict[str, float]) -> Answer:
        code = int(error.status_code)
        said = str(error).partition("\n")[0][:200]
        if code in (401, 403):
            raise ConfigError(
                f"{self.model.name}: {self.place.url} refuses this key", found=said,
                expected=f"a valid key in the environment variable {self.place.key_variable}",
                mend="export it and run the same command again",
            ) from error  # fmt: skip
        if code == 404:
            raise ConfigError(
                f"{self.model.name}: {self.place.url} has no model {self.model.model!r}", found=said,
                mend="check evaluate.models: model and endpoint.url",
            ) from error  # fmt: skip
        if code == 429:
            raise ClusterError(
                f"{self.model.name}: the quota at {self.place.url} is used up", found=said,
                mend="raise it there, then run the same command again: it asks only what is missing",
            ) from error  # fmt: skip
        if (reason := str(getattr(error, "code", "") or "")) in _OF_THE_PROMPT:
            return Answer(key=request.key, text="", tokens=0, finish_reason=f"{REFUSED}: {reason}", bill=bill)
        raise ConfigError(
            f"{self.model.name}: {self.place.url} refuses the request with status {code}", found=said,
            expected="a model that takes temperature, a limit and one message",
            mend="check evaluate.models: endpoint.api and model",
        ) from error  # fmt: skip


class Malformed(Exception):
    """A reply that came with a good status and cannot be used."""


def dollars(place: Endpoint, prompt_tokens: float, answer_tokens: float) -> float:
    """What so many tokens cost."""
    return (prompt_tokens * place.usd_per_million_prompt + answer_tokens * place.usd_per_million_answer) / 1e6


def _retry_after(error: Exception) -> float | None:
    """Seconds that a server asks to wait, where it says so in seconds."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    with suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after"]))
    return None
