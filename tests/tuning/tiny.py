"""A tiny language model, a tiny encoder with its tokenizer, and texts that can be learned."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from transformers import BertConfig, BertModel

from curriculum.tuning.settings import TuningSettings
from tests.adaptation.tiny_llama import TEXTS, bpe, save_tiny

SETTINGS = TuningSettings(
    seeds=2, steps=6, batch_size=4, block_size=16, dev_blocks=4, test_blocks=6, classifier_steps=20, classifier_batch_size=8,
    classifier_tokens=24, rank=2, alpha=4, virtual_tokens=3, prefix_hidden=8, bottleneck=4,
)  # fmt: skip


def save_language_model(folder: Path) -> Path:
    """Two layers of a Llama, random."""
    return save_tiny(folder)


def save_encoder(folder: Path) -> Path:
    """Two layers of a BERT, random, over the same byte-level tokenizer."""
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    shape = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertModel(BertConfig(**shape, pad_token_id=2)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=bpe(), pad_token="<|im_end|>").save_pretrained(folder)
    return folder


def domain() -> pd.DataFrame:
    """Twelve training and four test documents."""
    rows = [(f"doc-{i}", "test" if i % 4 == 0 else "train", " ".join(TEXTS[3 * i : 3 * i + 3])) for i in range(16)]
    return pd.DataFrame(rows, columns=["doc_id", "split", "text"])


def labelled() -> pd.DataFrame:
    """Sums and colours: one word gives the label away."""
    rows = []
    for i in range(60):
        split = ("train", "train", "train", "dev", "test")[i % 5]
        rows.append((f"a{i}", f"The sum of {i} and {i + 1} is returned", "sum", f"a{i}", split))
        rows.append((f"b{i}", f"A bird number {i} with a long blue feather", "bird", f"b{i}", split))
    return pd.DataFrame(rows, columns=["example_id", "text", "label", "group", "split"])
