"""The `tiny` preset: a Llama of a few million parameters and a BPE tokenizer trained on the rows. Not pretrained.

The one decision: the constant pieces of the prompt template are single tokens, so that a prompt spends its tokens on
what differs. Digits are tokens of their own, as prices and model numbers are compared digit by digit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from ecellm.config.schema import TinySizes
from ecellm.errors import ConfigError
from ecellm.tasks.template import Template, fixed_text

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def train_tokenizer(texts: Iterable[str], vocab: int, template: Template) -> Any:
    """A byte-level BPE tokenizer (transformers) of at most `vocab` tokens that adds a begin token.

    Raises:
        ConfigError: `vocab` has no room for the 256 bytes and the fixed tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    fixed = [AddedToken(text, normalized=False, special=False) for text in fixed_text(template)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + len(fixed) + 3
    if vocab < least:
        raise ConfigError(
            "model.tiny.vocab is too small",
            found=str(vocab),
            expected=f"at least {least}",
            mend="raise model.tiny.vocab",
        )
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(fixed),
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.add_tokens(fixed)
    begin = inner.token_to_id(BOS)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, begin)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def make_model(sizes: TinySizes, tokenizer: Any, *, max_length: int, seed: int) -> Any:
    """A Llama with random float32 weights drawn from `seed`. Raises ConfigError for sizes that do not fit together."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if sizes.hidden % (2 * sizes.heads):
        raise ConfigError(
            "model.tiny.hidden does not divide into heads of even size",
            found=f"hidden {sizes.hidden}, heads {sizes.heads}",
            expected="a multiple of twice the heads",
            mend="change model.tiny.hidden or model.tiny.heads",
        )
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=sizes.hidden,
        intermediate_size=-(-sizes.hidden * 8 // 3 // 8) * 8,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    key = int.from_bytes(hashlib.sha256(f"tiny\0{seed}".encode()).digest()[:8], "little", signed=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        return LlamaForCausalLM(config)
