"""Rows to token shards with Ray Data: render, tokenise, write, in parallel. Training order is not decided here.

The one decision: a shard is `prepare.shard_rows` rows in row order, cut before Ray sees them, and each is encoded and
written by one call. So the bytes depend on the rows and the tokenizer alone, whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecellm import stage
from ecellm.config.schema import TASK_IDS, Run
from ecellm.config.schema import Storage as StorageSettings
from ecellm.console import note
from ecellm.console import stage as announce
from ecellm.data.encode import Encoder, TooLong
from ecellm.data.shards import (
    FOLDER,
    INDEX_SCHEMA,
    SHARD_SCHEMA,
    content_fingerprint,
    index_key,
    interleave,
    parquet_bytes,
    shard_key,
)  # fmt: skip
from ecellm.errors import ClusterError, ConfigError, DataError, EcellmError
from ecellm.model.base import base_folder, materialise, placed
from ecellm.model.load import load_config, load_tokenizer
from ecellm.prompt import FILE, PromptPolicy, policy_of
from ecellm.records import Row
from ecellm.rows import SCHEMA, read_rows, table_rows
from ecellm.session import ray_session
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import task

SPLITS = ("train", "val")
TINY_ROWS = 20_000
"""Most rows that the tiny preset's tokenizer learns from."""


def prepare(run: Run) -> dict[str, Any]:
    """Write OUT/tokens, OUT/prompt.json and, for bases that must be made, OUT/base.

    Returns:
        The marker's facts: `fingerprint`, and in `splits` for train and val: rows, tokens, cut, left_out, shards; and
        `skipped`, whether they were complete already.

    Raises:
        DataError: no rows, or none that fits `prepare.max_length`.
        ConfigError: the base model cannot be reached, or is too short for `prepare.max_length`.
        CheckpointError: the base model's folder is not whole.
        ClusterError: Ray failed.
    """
    announce("prepare", f"{run.prepare.template} template, {run.model.base}")
    storage = open_storage(run.out, run.storage)
    made = stage.marker(storage, "rows")
    if made is None:
        raise DataError(
            f"{join(storage.root, 'rows')} is not complete", expected="a COMPLETE marker, written last by build",
            mend="run: ecellm build RUN.toml",
        )  # fmt: skip
    setting = f"IND_{run.prepare.setting}"
    rows = {split: read_rows(storage, split=split, setting=setting) for split in SPLITS}
    if not rows["train"]:
        raise DataError(
            f"{join(storage.root, 'rows/train')}: no row has the setting {setting}",
            expected="training rows", mend="change prepare.setting, or build again",
        )  # fmt: skip
    materialise(run, storage, _texts(rows["train"]))
    folder = base_folder(run, storage)
    tokenizer = load_tokenizer(folder, trust_remote_code=run.model.trust_remote_code)
    config = load_config(folder, trust_remote_code=run.model.trust_remote_code)
    _check_length(run, config)
    policy = policy_of(
        tokenizer, template=run.prepare.template, max_length=run.prepare.max_length,
        encoder_decoder=bool(config.is_encoder_decoder),
    )  # fmt: skip
    made_from = stage.fingerprint("tokens 1", made["fingerprint"], policy, run.prepare)
    complete = stage.is_complete(storage, FOLDER, made_from)
    if not complete:
        stage.clear(storage, FOLDER)
        encoder = Encoder(tokenizer, policy, encoder_decoder=policy.encoder_decoder)
        splits = _encode_all(run, storage, rows, encoder)
        storage.write(FILE, policy.to_json())
        stage.publish(storage, FOLDER, made_from, splits=splits, prompt=policy.model_dump())
    return {**(stage.marker(storage, FOLDER) or {}), "skipped": complete}


def read_prompt_policy(storage: Storage) -> PromptPolicy:
    """The policy that OUT's shards were made with. Raises DataError where they are not complete."""
    made = stage.marker(storage, FOLDER)
    if made is None:
        raise DataError(
            f"{join(storage.root, FOLDER)} holds no complete token shards", mend="run: ecellm prepare RUN.toml"
        )
    return PromptPolicy.model_validate(made["prompt"])


class EncodeShard:
    """What a Ray worker does: one block of rows in, one shard in storage, one line of facts out."""

    def __init__(self, root: str, settings: StorageSettings, encoder: Encoder) -> None:
        self.storage, self.encoder = open_storage(root, settings), encoder

    def __call__(self, block: pa.Table) -> pa.Table:
        """Encode and write the rows of one shard; they carry its split and number."""
        split, shard = block["shard_split"][0].as_py(), block["shard"][0].as_py()
        records: list[dict[str, Any]] = []
        cut, left_out = 0, []
        for row in table_rows(block.select(SCHEMA.names)):
            try:
                sample = self.encoder.sample(row)
            except TooLong:
                left_out.append(row.id)
                continue
            cut += sample.cut
            code = TASK_IDS.index(task(row.task).id)
            records.append(
                {"id": row.id, "task": code, "prompt_ids": sample.prompt_ids, "answer_ids": sample.answer_ids}
            )
        data = parquet_bytes(pa.Table.from_pylist(records, SHARD_SCHEMA))
        self.storage.write(shard_key(split, shard), data)
        facts = {
            "split": split, "shard": shard, "rows": len(records), "bytes": len(data), "cut": cut,
            "left_out": left_out, "sha256": hashlib.sha256(data).hexdigest(),
        }  # fmt: skip
        return pa.Table.from_pylist([facts], _FACTS)


_FACTS = pa.schema(
    [
        ("split", pa.string()), ("shard", pa.int32()), ("rows", pa.int64()), ("bytes", pa.int64()), ("cut", pa.int64()),
        ("left_out", pa.list_(pa.string())), ("sha256", pa.string()),
    ]
)  # fmt: skip


def _encode_all(run: Run, storage: Storage, rows: dict[str, list[Row]], encoder: Encoder) -> dict[str, Any]:
    cpus = max(1, min(run.cluster.workers * run.cluster.cpus_per_worker, os.cpu_count() or 1))
    blocks = [block for split in SPLITS for block in _blocks(split, rows[split], run.prepare.shard_rows)]
    with ray_session(run, cpus=cpus):
        # Workers may stand in another folder.
        facts = _run_blocks(blocks, (placed(run).out, run.storage, encoder))
    return {
        split: _finish(run, storage, split, rows[split], [fact for fact in facts if fact["split"] == split])
        for split in SPLITS
    }


def _run_blocks(blocks: list[pa.Table], arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Facts of every shard, by split and number."""
    import ray
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("progress", "execution.streaming_executor"):  # they tell of every run, and of bars that are off
        logging.getLogger(f"ray.data._internal.{name}").setLevel(logging.ERROR)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    most = max(1, min(len(blocks), int(resources.get("CPU", 1))))
    try:
        done = (
            ray.data.from_arrow(blocks)
            .map_batches(
                EncodeShard,
                fn_constructor_args=arguments,
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
            )
            .take_all()
        )
    except RayError as error:
        raise _cause(error) from error
    return sorted(done, key=lambda fact: (fact["split"], fact["shard"]))


def _cause(error: BaseException) -> EcellmError:
    """Our own error within what Ray raised, or a ClusterError."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, EcellmError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return ClusterError(
        "a Ray worker failed while encoding rows",
        found=str(error).strip().splitlines()[-1],
        expected="workers with memory for one shard",
        mend="look at the worker's log; lower prepare.shard_rows if memory ran out, and run again",
    )


def _blocks(split: str, rows: list[Row], size: int) -> list[pa.Table]:
    """Rows in shards, each with its split and number in two further columns."""
    blocks = []
    for shard, start in enumerate(range(0, len(rows), size)):
        part = rows[start : start + size]
        table = pa.table([[getattr(row, name) for row in part] for name in SCHEMA.names], schema=SCHEMA)
        table = table.append_column("shard_split", pa.array([split] * len(part), pa.string()))
        blocks.append(table.append_column("shard", pa.array([shard] * len(part), pa.int32())))
    return blocks


def _finish(run: Run, storage: Storage, split: str, rows: list[Row], facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the length index of a split and sum up its facts."""
    tables = [pq.read_table(io.BytesIO(storage.read(shard_key(split, fact["shard"])))) for fact in facts]
    whole = pa.concat_tables([SHARD_SCHEMA.empty_table(), *tables])
    left_out = [row for fact in facts for row in fact["left_out"]]
    there = {TASK_IDS[code] for code in whole["task"].unique().to_pylist()}
    without = sorted({task(row.task).id for row in rows} - there, key=TASK_IDS.index)
    if split == "train" and without:
        raise DataError(
            f"no training row of {', '.join(without)} fits prepare.max_length = {run.prepare.max_length}",
            found=f"{len(left_out)} of {len(rows)} rows are too long, as {sorted(left_out)[0]}",
            expected="some rows of every task",
            mend="raise prepare.max_length, or leave the task out of build.tasks",
        )
    lengths = [pc.list_value_length(whole[name]) for name in ("prompt_ids", "answer_ids")]
    index = pa.table([whole["id"], whole["task"], *lengths], schema=INDEX_SCHEMA)
    data = parquet_bytes(index)
    storage.write(index_key(split), data)
    tokens = interleave(whole["prompt_ids"], whole["answer_ids"]) if len(whole) else whole["task"].to_numpy()
    prompts, answers = (length.to_numpy() for length in lengths)
    cut = sum(fact["cut"] for fact in facts)
    note(f"{split}: {len(whole):,} samples, {len(tokens):,} tokens; {cut:,} inputs cut, {len(left_out):,} left out")
    if split == "val" and not len(whole):
        note("no validation rows: training goes on without a validation loss")
    if left_out:
        note(f"left out, too long for prepare.max_length = {run.prepare.max_length}: {', '.join(sorted(left_out)[:5])}")
    return {
        "rows": len(whole),
        "tokens": len(tokens),
        "answer_tokens": int(answers.sum()),
        "longest": int((prompts + answers).max(initial=0)),
        "cut": cut,
        "left_out": len(left_out),
        "left_out_ids": sorted(left_out)[:100],
        "fingerprint": content_fingerprint(whole["id"], prompts, answers, tokens),
        "index_sha256": hashlib.sha256(data).hexdigest(),
        "shards": [{key: fact[key] for key in ("rows", "bytes", "sha256")} for fact in facts],
    }


def _texts(rows: list[Row]) -> list[str]:
    """Texts that a tokenizer of our own learns from: evenly spread rows, without the template."""
    some = rows[:: -(-len(rows) // TINY_ROWS)]
    return [text for row in some for text in (row.instruction, row.input, row.options, row.output) if text]


def _check_length(run: Run, config: Any) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if longest and run.prepare.max_length > longest:
        raise ConfigError(
            "prepare.max_length is longer than the base model can read",
            found=f"{run.prepare.max_length} tokens",
            expected=f"at most {longest} for {run.model.base}",
            mend=f"set prepare.max_length to {longest} or less",
        )
