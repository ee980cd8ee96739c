"""A tiny random BERT folder, and tiny QA examples, for tests."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

WORDS = "the what is of capital color in france paris red blue house green city built by was answer list returns where who".split()


def tiny_bert(folder: Path) -> Path:
    """A BERT of two layers over a word vocabulary, saved as transformers saves one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocab = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *WORDS, *map(str, range(10))])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 96}
    BertModel(BertConfig(vocab_size=len(vocab), **shape, hidden_dropout_prob=0.1)).save_pretrained(folder)
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=96).save_pretrained(folder)
    return folder


def tiny_examples() -> pd.DataFrame:
    """Questions whose answer is one of two words, by article; 24 train, 4 dev, 4 test."""
    rows = []
    for number in range(32):
        color = ["red", "blue"][number % 2]
        context = f"the city was built by who . the house is {color} . answer {number % 10} ."
        start = context.index(color)
        split = "train" if number < 24 else "dev" if number < 28 else "test"
        rows.append(
            {
                "example_id": f"q{number}", "title": f"t{number}", "context": context, "question": "what is the color of the house ?",
                "answers": [color], "answer_starts": [start], "group": f"article{number}", "split": split, "source": "test",
            }
        )
    return pd.DataFrame(rows)
