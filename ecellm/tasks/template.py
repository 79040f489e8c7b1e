"""The two prompt templates, a wire format: published checkpoints need every byte (spec C.1).

Placeholders are replaced once; braces inside the values are text. The answer follows the last newline immediately.
"""

from __future__ import annotations

from typing import Literal

Template = Literal["alpaca", "mistral"]

_HEAD = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
_INPUT = "\n\n### Input:\n"
_OPTIONS = "\n\n### Options:\n"
_RESPONSE = {"alpaca": "\n\n### Response:\n", "mistral": "\n\n [/INST] ### Response:\n"}
_START = {"alpaca": "", "mistral": "[INST] "}

SEPARATOR: dict[str, str] = {"alpaca": "### Response:", "mistral": "[/INST] ### Response:"}
"""What a model that repeats the template writes before another answer (spec C.3)."""


def fill(template: Template, instruction: str, input: str, options: str | None) -> str:
    """The prompt text. An empty `options` takes the variant without options."""
    middle = f"{_OPTIONS}{options}" if options else ""
    return f"{_START[template]}{_HEAD}{instruction}{_INPUT}{input}{middle}{_RESPONSE[template]}"


def opening(template: Template) -> str:
    """What every prompt begins with."""
    return _START[template] + _HEAD


def fixed_text(template: Template) -> tuple[str, ...]:
    """The constant pieces of a template, longest first; a tokenizer of our own may keep each whole."""
    pieces = (opening(template), _INPUT, _OPTIONS, _RESPONSE[template])
    return tuple(sorted(pieces, key=len, reverse=True))


def cut_reply(template: Template, text: str) -> str:
    """A model's continuation up to the first repeated separator, stripped (spec C.3)."""
    return text.split(SEPARATOR[template], 1)[0].strip()
