"""Packed rows against the padded batches of transformers' Trainer, on the same model and rows.

Compared: our plain engine on packed rows of 4,096 tokens, and `transformers.Trainer` as it comes (batches of 16 in
random order, `DataCollatorForSeq2Seq` padding to the longest, the model's own loss), one process, same threads, the
same Llama (4 layers, width 256, vocabulary 32,000) and the same 192 rows of ECInstruct-like lengths. Rounds of both
in turn. Figure: non-padding tokens a second, ours over Trainer's, median over rounds. Also: the share of positions
that hold real tokens.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ecellm.data.batch import IGNORE
from ecellm.data.order import batch_at
from ecellm.records import World
from ecellm.train.plain import PlainEngine
from tests.bench._common import MadeTokens, figure, llama, say, spread
from tests.train.toys import toy_layout, toy_run

ROWS, BATCH, ROUNDS, ROOM = 192, 64, 3, 4096
VOCABULARY = 32_000
ALONE = World(rank=0, size=1)


def run() -> Any:
    """The ratio over rounds, and how full rows are."""
    torch.set_num_threads(max(1, torch.get_num_threads()))
    tokens = MadeTokens(ROWS, VOCABULARY)
    real = int((tokens.prompt_lengths + tokens.answer_lengths).sum())
    ours, theirs = [], []
    for turn in range(ROUNDS):
        ours.append(real / _ours(tokens))
        theirs.append(real / _theirs(tokens))
        say(f"round {turn + 1}: ours {ours[-1]:.0f} tokens/s, Trainer {theirs[-1]:.0f}")
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    filled = _filled(MadeTokens(4096, VOCABULARY))
    return figure(
        ratio, "times the non-padding tokens/s of Trainer", versus=1.0, goal="at least 2, and 97 % of positions real",
        holds=ratio >= 2 and filled >= 0.97, how=__doc__, positions_real=filled, positions_real_padded=_padded(tokens),
        tokens_per_second={"ours": spread(ours), "trainer": spread(theirs)},
        samples=[a / b for a, b in zip(ours, theirs, strict=True)],
    )  # fmt: skip


def _model() -> Any:
    return llama(hidden=256, layers=4, heads=8, vocabulary=VOCABULARY)


def _ours(tokens: MadeTokens) -> float:
    engine = PlainEngine(_model(), toy_run(), torch.device("cpu"))
    layout = toy_layout(pack_tokens=ROOM)
    began = time.perf_counter()
    for step in range(ROWS // BATCH):
        numbers = batch_at("x", 1, ROWS, BATCH, step)
        dealt = layout.deal(tokens, numbers, 1)
        engine.forward_backward(layout.micro_steps(tokens, numbers, ALONE, dealt, layout.weights(tokens, numbers)))
        engine.step(1e-4)
    return time.perf_counter() - began


def _theirs(tokens: MadeTokens) -> float:
    model = _model()
    model.set_attn_implementation("sdpa")
    rows = []
    for i in range(ROWS):
        prompt, answer = tokens.sample(i)
        ids = np.concatenate([prompt, answer])
        rows.append({"input_ids": ids.tolist(), "labels": [IGNORE] * len(prompt) + answer.tolist()})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=16, gradient_accumulation_steps=BATCH // 16,
            num_train_epochs=1, learning_rate=1e-4, save_strategy="no", logging_strategy="no", report_to=[],
            use_cpu=True, remove_unused_columns=False, disable_tqdm=True,
        )  # fmt: skip
        collator = DataCollatorForSeq2Seq(_Padder(), padding=True, pad_to_multiple_of=8, label_pad_token_id=IGNORE)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)  # type: ignore[arg-type]
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        began = time.perf_counter()
        trainer.train()
        return time.perf_counter() - began


class _Padder(PreTrainedTokenizerFast):
    """Pads ids; there is no text here."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel

        super().__init__(tokenizer_object=Tokenizer(WordLevel({"<pad>": 0}, unk_token="<pad>")), pad_token="<pad>")


def _filled(tokens: MadeTokens) -> float:
    """Share of positions of packed rows that hold tokens, over an epoch of batches of 128 on 8 ranks."""
    layout, positions, real = toy_layout(pack_tokens=ROOM), 0, 0
    lengths = tokens.prompt_lengths + tokens.answer_lengths
    for step in range(tokens.n // 128):
        numbers = batch_at("x", 1, tokens.n, 128, step)
        for rank in layout.deal(tokens, numbers, 8):
            positions += sum(-(-int(lengths[row].sum()) // 8) * 8 for row in rank)
        real += int(lengths[numbers].sum())
    return real / positions


def _padded(tokens: MadeTokens) -> float:
    """The same of padded batches of 16 in random order."""
    lengths = tokens.prompt_lengths + tokens.answer_lengths
    order = batch_at("x", 1, tokens.n, tokens.n, 0)
    groups = [lengths[order[i : i + 16]] for i in range(0, tokens.n, 16)]
    return float(lengths.sum() / sum(len(group) * (-(-int(group.max()) // 8) * 8) for group in groups))
