"""What a model's prompts were made with: template, tokenizer and special tokens. It travels with the model as
`prompt.json`, and evaluation refuses another tokenizer. It renders nothing itself; tasks do.

The one decision: the tokenizer's digest is taken over its own serialisation without the settings that a caller may
change between two calls (padding, truncation), so it is the same before saving and after loading.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import ValidationError

from ecellm.config.schema import Section
from ecellm.errors import CheckpointError

FILE = "prompt.json"


class PromptPolicy(Section):
    """How text became tokens."""

    template: Literal["alpaca", "mistral"]
    """Prompt template (spec C.1)."""
    tokenizer_sha256: str
    """`tokenizer_digest` of the tokenizer."""
    bos: bool
    """Whether the tokenizer puts a begin token before a prompt."""
    eos: bool
    """Whether answers end with the end token; always, so far."""
    max_length: int
    """Longest prompt plus answer, in tokens; for an encoder-decoder the longest of either."""
    encoder_decoder: bool
    """Whether the prompt goes into an encoder."""

    def to_json(self) -> bytes:
        """The bytes of prompt.json."""
        return (json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n").encode()


def read_policy(data: bytes, place: str) -> PromptPolicy:
    """The policy in the bytes of a prompt.json that lies at `place`. Raises CheckpointError."""
    try:
        return PromptPolicy.model_validate_json(data)
    except ValidationError as error:
        raise CheckpointError(
            f"{place}: not a prompt policy",
            found=str(error).partition("\n")[0],
            expected=", ".join(PromptPolicy.model_fields),
            mend="export the model again from its checkpoint",
        ) from error


def policy_of(
    tokenizer: Any, *, template: Literal["alpaca", "mistral"], max_length: int, encoder_decoder: bool
) -> PromptPolicy:
    """The policy of prompts that are made with `tokenizer` (a transformers tokenizer)."""
    return PromptPolicy(
        template=template,
        tokenizer_sha256=tokenizer_digest(tokenizer),
        bos=adds_bos(tokenizer),
        eos=True,
        max_length=max_length,
        encoder_decoder=encoder_decoder,
    )


def check(policy: PromptPolicy, tokenizer: Any, place: str = "the model") -> None:
    """Make sure that `tokenizer` is the one that the model learnt with. Raises CheckpointError."""
    found = tokenizer_digest(tokenizer)
    if found != policy.tokenizer_sha256 or adds_bos(tokenizer) != policy.bos:
        raise CheckpointError(
            f"{place} learnt with another tokenizer than this one",
            found=f"tokenizer {found}, begin token {'on' if adds_bos(tokenizer) else 'off'}",
            expected=f"tokenizer {policy.tokenizer_sha256}, begin token {'on' if policy.bos else 'off'} ({FILE})",
            mend="use the tokenizer files that were exported with the model, or prepare and train again with this one",
        )


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its begin token before a text by default."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and len(ids) > 0 and ids[0] == tokenizer.bos_token_id


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 over the canonical serialisation of a transformers tokenizer and its begin and end tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        body = {"class": type(tokenizer).__name__, "vocab": dict(sorted(tokenizer.get_vocab().items()))}
    else:
        body = json.loads(backend.to_str())
        body.pop("padding", None)
        body.pop("truncation", None)
    whole = {"tokenizer": body, "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
