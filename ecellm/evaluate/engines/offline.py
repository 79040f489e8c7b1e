"""The engine `vllm`: vLLM's offline batch mode in this process, with its prefix caching. The only place that knows it.

Greedy and the paper's sampling. Token ids go in, so its own chat templates have no part in this. It cuts a reply at the
separator itself, by its stop strings. Its prefix cache shares whole blocks only, so no saved share is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ecellm.config.schema import Model
from ecellm.errors import ConfigError
from ecellm.evaluate.engines.base import Facts
from ecellm.evaluate.log import Answer
from ecellm.evaluate.requests import Request
from ecellm.model.decode import TEMPERATURE, TOP_P


class Offline:
    """A vLLM engine.

    Args:
        folder: local Hugging Face folder.
        settings: dtype and trust_remote_code are taken from here.
        gpu: whether a GPU is there; a CPU runs without graphs.
        longest: most tokens of prompt and answer; 0: the model's own.
        most_rows: most rows that are decoded together; 0: vLLM's own.
        separator: heading that ends a reply where the model writes it again.

    Raises ConfigError where vLLM is not installed.
    """

    def __init__(
        self, folder: str, settings: Model, *, gpu: bool, longest: int = 0, most_rows: int = 0, separator: str = ""
    ) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                "evaluate.engine: vllm is not installed", found=str(error), expected="the package vllm",
                mend='pip install "ecellm[vllm]" on GPU machines, or evaluate.engine = "transformers"',
            ) from error  # fmt: skip
        more: dict[str, Any] = {"max_model_len": longest} if longest else {}
        if most_rows:
            more["max_num_seqs"] = most_rows
        if settings.dtype != "auto" or not gpu:
            more["dtype"] = "float32" if settings.dtype == "auto" else settings.dtype
        self._llm: Any = LLM(
            model=folder, enable_prefix_caching=True, seed=0, disable_log_stats=True, enforce_eager=not gpu,
            trust_remote_code=settings.trust_remote_code, **more,
        )  # fmt: skip
        self._stop = [separator] if separator else None
        self._asked = 0

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """All at once: vLLM schedules them itself."""
        if not requests:
            return
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        outputs = self._llm.generate(prompts, [self._sampling(request) for request in requests], use_tqdm=False)
        self._asked += sum(len(request.prompt_ids) for request in requests)
        for request, output in zip(requests, outputs, strict=True):
            said = output.outputs[0]
            ended = said.finish_reason == "stop"
            tokens = len(said.token_ids) - (1 if ended and said.stop_reason is None else 0)
            yield Answer(
                key=request.key, text=said.text.strip(), tokens=tokens, finish_reason="stop" if ended else "length"
            )  # fmt: skip

    def facts(self) -> Facts:
        """Prompt tokens; how many were computed it does not say."""
        return Facts("vllm", self._asked, self._asked)

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams

        if request.decoding not in ("greedy", "paper"):
            raise ConfigError(
                f"evaluate.decoding: {request.decoding} with the engine vllm", expected="greedy or paper",
                mend='evaluate.engine = "transformers"',
            )  # fmt: skip
        drawn = request.decoding == "paper"
        return SamplingParams(
            temperature=TEMPERATURE if drawn else 0.0, top_p=TOP_P if drawn else 1.0, max_tokens=request.max_new_tokens,
            seed=request.seed, stop=self._stop,
        )  # fmt: skip
