"""What a status of an OpenAI-compatible endpoint means: about this prompt alone, gone in a while, or for good."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from ecellm.config.evaluation import NamedModel
from ecellm.errors import ClusterError, ConfigError, EcellmError

_OF_THE_PROMPT = ("content_filter", "content_policy_violation", "context_length_exceeded", "string_above_max_length")
"""Codes of a bad request that are about this one prompt: the answer is that there is none."""
_TOO_LONG = re.compile("context (length|window|size)|too long|maximum number of tokens", re.IGNORECASE)
"""The same in words, of servers with other codes."""
_NO_QUOTA = ("insufficient_quota", "exceeded_current_quota", "billing_hard_limit")
"""Codes or types of a 429 that no waiting mends."""


def passes(error: Any) -> bool:
    """Whether a status is one that trying again may mend."""
    code = int(error.status_code)
    names = f"{getattr(error, 'code', '')} {getattr(error, 'type', '')}"
    return (code in (408, 409, 429) or code >= 500) and not any(name in names for name in _NO_QUOTA)


def about_the_prompt(error: Any) -> str:
    """Why this one prompt has no answer; empty where the status is not about it."""
    status, code = int(error.status_code), str(getattr(error, "code", "") or "")
    if status < 500 and code in _OF_THE_PROMPT:
        return code
    words = _words(getattr(error, "body", None))
    too_long = status == 413 or (status in (400, 422) and _TOO_LONG.search(words))
    # One prompt that is larger than a whole minute's limit is told so by a 429.
    too_large = status == 429 and "request too large" in words.lower()
    return "context_length_exceeded" if too_long or too_large else ""


def _words(body: object) -> str:
    """What a server says of a fault. The prompt that some send back with it has no part in that."""
    if isinstance(body, list):
        return " ".join(map(_words, body))
    if isinstance(body, dict):
        return " ".join(_words(body[name]) for name in ("error", "message", "detail", "msg") if name in body)
    return str(body or "")


def final(model: NamedModel, error: Any) -> EcellmError:
    """The error for a status that trying again does not mend."""
    code = int(error.status_code)
    said = str(error).partition("\n")[0][:200]
    if code in (401, 403):
        return ConfigError(
            f"{model.name}: {model.endpoint.url} refuses this key", found=said,
            expected=f"a valid key in the environment variable {model.endpoint.key_variable}",
            mend="export it and run the same command again",
        )  # fmt: skip
    if code == 404:
        return ConfigError(
            f"{model.name}: {model.endpoint.url} has no model {model.model!r}", found=said,
            mend="check evaluate.models: model and endpoint.url",
        )  # fmt: skip
    if code == 429:
        return ClusterError(
            f"{model.name}: the quota at {model.endpoint.url} is used up", found=said,
            mend="raise it there, then run the same command again: it asks only what is missing",
        )  # fmt: skip
    return ConfigError(
        f"{model.name}: {model.endpoint.url} refuses the request with status {code}", found=said,
        expected="a model that takes temperature, a limit and one message",
        mend="check evaluate.models: endpoint.api and model",
    )  # fmt: skip


def retry_after(error: Exception) -> float | None:
    """Seconds that a server asks to wait, where it says so in seconds."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    with suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after"]))
    return None
