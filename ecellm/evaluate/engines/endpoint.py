"""The engine `openai`: any OpenAI-compatible endpoint, through the `openai` library. The only place that knows it.

Many requests under way, at the pace that is allowed; what fails for a while is tried again, what fails for good is an
answer that says so. The one decision: every try that was billed is counted with the request that it was made for, those
whose reply could not be used too, so the bill is the sum over the log. Tries that a stop or a failure cut short leave a
line of their own in it; only a kill loses a bill, that of what was under way.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ecellm.config.evaluation import Endpoint, NamedModel
from ecellm.errors import ClusterError, ConfigError, EcellmError
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.engines.budget import Budget, dollars
from ecellm.evaluate.engines.pace import Pace, wait_before
from ecellm.evaluate.engines.refusals import about_the_prompt, final, passes, retry_after
from ecellm.evaluate.log import UNANSWERED, Answer
from ecellm.evaluate.requests import Request
from ecellm.evaluate.stopping import stopped
from ecellm.model.decode import TEMPERATURE, TOP_P

BYTES_PER_TOKEN = 4
"""For estimates of a prompt's tokens, which only the endpoint knows."""
LOOK_S = 1.0
"""Seconds between looks for a stop."""
REFUSED, MALFORMED = "refused", "malformed"
"""Finish reasons: the endpoint will not answer this prompt; none of the tries brought a reply that can be used."""
MOST_MALFORMED = 8
"""When so many prompts in a row end like that, it is not the endpoint that replies."""
TOO_FAST_S = 600.0
"""Longest time in which an endpoint may say nothing but that it is asked too fast."""


class Remote:
    """A model behind an endpoint.

    Args:
        model: its name there, and the endpoint.
        key: of the endpoint; empty: it is asked without one.
        spent: what it has cost already, in US dollars.
        struck: keys of requests whose tries led to nothing in an earlier command.
        separator: heading that ends a reply where the model writes it again.
        stopping: whether somebody asked to stop.
        clock, sleep, draw: time, waiting (None: until a stop at most) and its jitter.
    """

    def __init__(
        self,
        model: NamedModel,
        key: str,
        *,
        spent: float = 0.0,
        struck: Collection[str] = (),
        separator: str = "",
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
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
        self._stopping, self._halted = stopping, threading.Event()
        self._sleep, self._draw = sleep or self._halted.wait, draw or random.Random()
        limits = (self.place.requests_per_minute, self.place.tokens_per_minute)
        self._pace = Pace(*limits, clock=clock, sleep=self._rest, draw=self._draw)
        self._budget = Budget(model, spent, self._halted)
        self._asked = 0
        self._struck = struck
        self._useless = 0
        """Prompts without a usable reply since the last that had one."""
        self._limit = "max_tokens"
        """What the endpoint calls the most new tokens."""

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers as they come, and lines `unanswered` with the bills of tries that led to none.

        On a stop, or when one fails for good, nothing more is sent; the replies under way, each of which takes at most
        `endpoint.timeout_s`, are handed out before the error.

        Raises ConfigError (no such model, no right to it, budget spent), ClusterError (no use in trying on), Stopped.
        """
        failed: EcellmError | None = None
        queue = iter(requests)
        held: list[Answer] = []
        self._halted.clear()
        with ThreadPoolExecutor(max_workers=self.place.concurrency, thread_name_prefix="endpoint") as pool:
            under_way: set[Future[tuple[Answer | None, EcellmError | None]]] = set()
            try:
                while True:
                    if failed is None and self._stopping():
                        failed = stopped()
                    if failed is not None:
                        self._halted.set()
                    while failed is None and len(under_way) < self.place.concurrency:
                        if (request := next(queue, None)) is None:
                            break
                        under_way.add(pool.submit(self._one, request))
                    if not under_way:
                        break
                    done, under_way = wait(under_way, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                    for future in done:
                        answer, error = future.result()
                        failed = failed or error
                        if answer is not None:
                            yield from self._sorted_out(answer, held)
                    if self._useless >= MOST_MALFORMED:
                        failed = failed or self._no_endpoint()
            finally:
                self._halted.set()
                for future in under_way:
                    future.cancel()
        for one in held:  # what led to nothing before as well is the prompt's own fault, or nobody's
            yield one if one.key in self._struck else _unanswered(one.key, one.bill)
            failed = failed or (None if one.key in self._struck else self._no_endpoint())
        if failed is not None:
            raise failed

    def _sorted_out(self, answer: Answer, held: list[Answer]) -> Iterator[Answer]:
        """Answers to hand out. Malformed ones are held until one can be used: it may be a gateway that replies."""
        if answer.finish_reason == MALFORMED:
            self._useless += 1
            held.append(answer)
            return
        if answer.finish_reason != UNANSWERED:
            yield from held
            held.clear()
            self._useless = 0
        yield answer

    @property
    def spent(self) -> float:
        """US dollars that were billed until now."""
        return self._budget.spent

    def facts(self) -> Facts:
        """Prompt tokens as billed; what is computed there is the endpoint's affair."""
        return Facts(f"endpoint, {self.place.concurrency} at once", self._asked, self._asked)

    def _one(self, request: Request) -> tuple[Answer | None, EcellmError | None]:
        """The answer, or the error; with an error what was sent until then, if anything."""
        bill = {"prompt_tokens": 0.0, "answer_tokens": 0.0, "attempts": 0.0}
        try:
            return self._tried(request, bill), None
        except EcellmError as error:
            return _unanswered(request.key, bill) if bill["attempts"] else None, error

    def _tried(self, request: Request, bill: dict[str, float]) -> Answer:
        estimate = len(request.prompt_ids) // BYTES_PER_TOKEN
        cost = dollars(self.place, estimate, request.max_new_tokens)
        attempt = malformed = 0
        while True:
            sent_with = self._limit
            try:
                with self._budget.room(cost):
                    self._pace.wait(estimate + request.max_new_tokens)
                    bill["attempts"] += 1
                    reply = self._send(request, sent_with)
                    self._pace.accepted()
                    return self._read(request, reply, bill)
            except self._openai.APIStatusError as error:
                if self._renamed(error, sent_with):
                    continue  # it says how to ask; that is no failure
                if reason := about_the_prompt(error):
                    return _empty(request, f"{REFUSED}: {reason}", bill)
                if not passes(error):
                    raise final(self.model, error) from error
                if int(error.status_code) == 429:  # nor is this: it only takes longer
                    self._too_fast(error)
                    continue
                trouble: Exception = error
            except self._openai.APIConnectionError as error:
                trouble = error
            except (self._openai.APIResponseValidationError, ValueError, Malformed) as error:
                malformed += 1  # ValueError: a body that is no JSON
                trouble = error
            attempt += 1
            if attempt >= self.place.attempts:
                break
            self._rest(wait_before(attempt, retry_after(trouble), self._draw))
        if malformed == attempt:
            return _empty(request, MALFORMED, bill)
        raise ClusterError(
            f"{self.model.name}: {self.place.attempts} tries of one request failed",
            found=f"{type(trouble).__name__}: {str(trouble).partition(chr(10))[0][:200]}",
            expected=f"replies from {self.place.url}",
            mend="run the same command again later: it asks only what is missing; or raise endpoint.attempts",
        ) from trouble

    def _rest(self, seconds: float) -> None:
        """Wait; not any longer once nothing more is to be sent. Raises Stopped then."""
        self._sleep(seconds)
        if self._halted.is_set():
            raise stopped()

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
        prompt_tokens, answer_tokens = (_number(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        bill["prompt_tokens"] += prompt_tokens
        bill["answer_tokens"] += answer_tokens
        self._budget.spend(dollars(self.place, prompt_tokens, answer_tokens))
        self._asked += prompt_tokens
        choices = getattr(reply, "choices", None)
        first = choices[0] if isinstance(choices, list) and choices else None
        said = getattr(first, "text", None) if self.place.api == "completions" else None
        if self.place.api == "chat":
            said = getattr(getattr(first, "message", None), "content", None)
        reason = str(getattr(first, "finish_reason", None) or "stop")
        if said is None and (reason == "content_filter" or getattr(getattr(first, "message", None), "refusal", None)):
            return _empty(request, f"{REFUSED}: content_filter", bill)
        if said is None and reason == "length":  # it thought, and had no room left to speak
            said = ""
        if not isinstance(said, str):
            raise Malformed(f"a reply without text: {str(reply)[:120]}")
        if self.separator:
            said = said.split(self.separator, 1)[0]
        return Answer(key=request.key, text=said.strip(), tokens=answer_tokens, finish_reason=reason, bill=bill)

    def _too_fast(self, error: Any) -> None:
        """Hold all requests back. Raises ClusterError when that has gone on for long."""
        if (seconds := self._pace.refused(retry_after(error))) > TOO_FAST_S:
            raise ClusterError(
                f"{self.model.name}: {self.place.url} says that it is asked too fast, and nothing else",
                found=f"for {seconds / 60:.0f} minutes: {str(error).partition(chr(10))[0][:200]}",
                expected="a reply now and then",
                mend="set endpoint.requests_per_minute and tokens_per_minute to what is allowed there, or run the same "
                "command again later: it asks only what is missing",
            ) from error  # fmt: skip

    def _renamed(self, error: Any, sent_with: str) -> bool:
        """Whether the endpoint only has another name for the most new tokens, which is used from now on."""
        if sent_with == "max_tokens" and int(error.status_code) == 400 and "max_completion_tokens" in str(error):
            self._limit = "max_completion_tokens"
            return True
        return False

    def _no_endpoint(self) -> ClusterError:
        return ClusterError(
            f"{self.model.name}: {self.place.url} gives no reply that can be used",
            found=f"{self._useless} prompts in a row, {self.place.attempts} tries each",
            expected=f"replies of the {self.place.api} API with text in them",
            mend="check evaluate.models: endpoint.url and api; or run it again later: all of them are asked again",
        )  # fmt: skip


class Malformed(Exception):
    """A reply that came with a good status and cannot be used."""


def _empty(request: Request, reason: str, bill: dict[str, float]) -> Answer:
    return Answer(key=request.key, text="", tokens=0, finish_reason=reason, bill=bill)


def _unanswered(key: str, bill: dict[str, float] | None) -> Answer:
    return Answer(key=f"{key}/{uuid.uuid4().hex[:8]}", text="", tokens=0, finish_reason=UNANSWERED, bill=bill)


def _number(usage: Any, name: str) -> int:
    found = getattr(usage, name, 0)
    return found if isinstance(found, int) and found > 0 else 0
