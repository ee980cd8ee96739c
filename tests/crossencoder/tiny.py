"""A BERT with random weights and a word-level vocabulary, small enough to train in a second."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = (
    "the a is of and to in on cat dog house river red blue green number city was built by not never all some it has have "
    "python list function returns value error raised when sorted string question answer yes no which what how many where"
).split()


def tiny_bert(folder: Path, words: list[str] | None = None) -> Path:
    """Write the model and its tokenizer into ``folder``; returns ``folder``."""
    characters = list(string.ascii_lowercase + string.digits + ".,:;?!()'%-")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    vocabulary += sorted(set(words or WORDS) - set(characters))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=256,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
