"""A model folder that answers prompts and scores possible answers, on a CPU or a GPU.

Text in and out of the decoding loops: which tokens end an answer, how its text is cut (spec C.3). It knows nothing of
tasks, rows or files of answers. The one decision: the packed way is taken only when a trial at the start gives the same
logits as the model's own plain way; otherwise the padded one is, and `way` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ecellm.config.schema import Model
from ecellm.errors import ClusterError
from ecellm.model.attend import NotServed
from ecellm.model.budget import Budget, budget_for, is_out_of_memory
from ecellm.model.choose import Likelihood, Tokens, fan_of, likelihoods
from ecellm.model.decode import Ask, Ending
from ecellm.model.guide import Grammars
from ecellm.model.layout import lay_out
from ecellm.model.load import load_model, load_tokenizer, pick_attention, pick_dtype
from ecellm.model.packed import Packed
from ecellm.model.padded import Padded

TRIAL_TOKENS = 24
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Largest difference of two logits that rounding explains, relative to the largest logit."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `tokens` are the new ones without the end token; `finish_reason` is `stop` or `length`."""

    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: a prompt as the encoder made it, and how it may be answered."""

    prompt: Sequence[int]
    limit: int
    seed: int | None = None
    """Seed of the paper's sampling; None: greedy."""
    grammar: str = ""
    """Grammar that the answer keeps; empty: none."""


class Generator:
    """One model, held in memory.

    Args:
        folder: local Hugging Face folder with config, weights and tokenizer.
        settings: dtype and attention are taken from here.
        device: `cpu`, `cuda`, `cuda:0`; empty: a GPU where there is one.
        separator: heading that stands before an answer; where a model writes it again, the answer ends.
        workers: processes like this one that share the machine's memory.
        most_tokens, most_rows: bounds of one pass; 0: found out.

    Raises CheckpointError where the folder has no model or tokenizer.
    """

    def __init__(
        self, folder: str, settings: Model, device: str = "", *, separator: str = "### Response:",
        workers: int = 1, most_tokens: int = 0, most_rows: int = 0,
    ) -> None:  # fmt: skip
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Recomputing activations serves training only, and switches the cache off.
        settings = settings.model_copy(update={"gradient_checkpointing": False})
        attention, _ = pick_attention(settings, place)
        dtype = getattr(torch, pick_dtype(settings, place))
        self.tokenizer: Any = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
        self.model: Any = load_model(folder, settings, dtype=dtype, attention=attention)
        self.model.to(place).eval()
        lay_out(self.model, workers)
        self.separator = separator
        self.end_ids = _end_ids(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else min(self.end_ids, default=0)
        self.budget = budget_for(self.model, workers=workers, most_tokens=most_tokens, most_rows=most_rows)
        self._grammars: Grammars | None = None
        self.way, self._decoder = _decoder_of(self.model, self._ending(), self.budget, self.pad_id, attention)

    @property
    def prompt_tokens(self) -> tuple[int, int]:
        """Tokens of the prompts so far, and how many of them went through the model."""
        return self._decoder.asked, self._decoder.computed

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """(index of the question, its reply), each as soon as it is complete.

        Raises ClusterError where memory does not suffice for a single row.
        """
        asks = [self._ask(question) for question in questions]
        for index, tail in self._surely(len(asks), lambda left: self._decoder.answer([asks[i] for i in left])):
            yield index, Reply(self._text(tail.tokens), len(tail.tokens), "stop" if tail.stopped else "length")

    def score(
        self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Tokens]]
    ) -> Iterator[tuple[int, list[Likelihood]]]:
        """(index of the prompt, what each of its possible answers is worth), in any order."""
        fans = [fan_of(found) for found in options]
        scored = self._surely(
            len(prompts), lambda left: self._decoder.score([prompts[i] for i in left], [fans[i] for i in left])
        )
        for index, lines in scored:
            yield index, likelihoods(options[index], fans[index], lines)

    def _surely(self, n: int, work: Callable[[list[int]], Iterator[tuple[int, Any]]]) -> Iterator[tuple[int, Any]]:
        """What `work` finds for indices 0 to n - 1; where memory runs out, the rest again in smaller parts."""
        left = list(range(n))
        while left:
            here, done = left, set()
            try:
                for place, found in work(here):
                    done.add(here[place])
                    yield here[place], found
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                left = [index for index in here if index not in done]
                if not self.budget.shrink():
                    raise _too_small(error) from error
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _ask(self, question: Question) -> Ask:
        guide = None
        if question.grammar:
            if self._grammars is None:
                vocabulary = int(self.model.config.get_text_config().vocab_size)
                self._grammars = Grammars(self.tokenizer, vocabulary, self.end_ids)
            grammars, grammar = self._grammars, question.grammar
            guide = lambda: grammars.guide(grammar)  # noqa: E731
        return Ask(tuple(question.prompt), question.limit, question.seed, guide)

    def _ending(self) -> Ending:
        """End tokens, and the separator written again: what comes after it is cut off anyway."""
        if not self.separator.strip():
            return Ending(self.end_ids)
        last = self.separator.rstrip()[-1]
        ids = range(len(self.tokenizer))
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids))
        hints = frozenset(i for i, piece in zip(ids, pieces, strict=True) if piece and last in piece)
        return Ending(self.end_ids, hints, lambda tokens: self.separator in self._decoded(tokens))

    def _text(self, tokens: Sequence[int]) -> str:
        return cut(self._decoded(tokens), self.separator)

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


def cut(text: str, separator: str) -> str:
    """A reply up to the first recurrence of the response separator, without surrounding white space (spec C.3)."""
    return (text.split(separator, 1)[0] if separator else text).strip()


def _decoder_of(model: Any, ending: Ending, budget: Budget, pad_id: int, attention: str) -> tuple[str, Packed | Padded]:
    """How this model decodes, in a word, and the loop that does it."""
    if model.config.is_encoder_decoder:
        return "padded: encoder and decoder", Padded(model, ending, budget, pad_id)
    try:
        difference, largest = _trial(model, ending, budget)
    except (NotServed, AttributeError, TypeError, ValueError, KeyError) as reason:
        said = str(reason) if isinstance(reason, NotServed) else f"{type(reason).__name__} in the trial"
    else:
        if difference <= TOLERANCE.get(model.dtype, 0.3) * largest:
            return "packed", Packed(model, ending, budget)
        said = f"the trial's logits differ by {difference:.2g}"
    model.set_attn_implementation(attention)
    return f"padded: {said}", Padded(model, ending, budget, pad_id)


@torch.inference_mode()
def _trial(model: Any, ending: Ending, budget: Budget) -> tuple[float, float]:
    """Two prompts with a common beginning, plainly and packed: the largest difference, and the largest logit."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    drawn = torch.randint(0, vocabulary, (2, TRIAL_TOKENS), generator=torch.Generator().manual_seed(0))
    drawn[1, : TRIAL_TOKENS // 2] = drawn[0, : TRIAL_TOKENS // 2]
    plain = [model(input_ids=row[None].to(model.device)).logits[0, -2:].float() for row in drawn]
    packed = Packed(model, ending, budget)
    prompts = [row[:-1].tolist() for row in drawn]
    fans = [fan_of([(int(row[-1]), 0)]) for row in drawn]
    difference = 0.0
    for index, lines in packed.score(prompts, fans):
        wanted = torch.log_softmax(plain[index], dim=-1)
        found = torch.stack([lines[-1], lines[0]])
        difference = max(difference, float((found - wanted).abs().max()))
    return difference, max(1.0, float(torch.stack(plain).abs().max()))


def _too_small(error: BaseException) -> ClusterError:
    return ClusterError(
        "memory ran out with a single row in it",
        found=str(error).partition("\n")[0][:200],
        expected="memory for the model and the longest prompt",
        mend="give the workers more memory, or fewer of them to a machine (evaluate.workers)",
    )


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    settings = getattr(model, "generation_config", None)
    found: set[int | None] = {tokenizer.eos_token_id}
    for value in (getattr(settings, "eos_token_id", None), getattr(model.config, "eos_token_id", None)):
        found.update(value if isinstance(value, list | tuple) else [value])
    return frozenset(int(value) for value in found if value is not None)
