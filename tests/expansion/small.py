"""Thirty passages on five themes, questions that name the theme alone, and an encoder of words: what it takes to see an expansion work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from curriculum.artifacts import IndexArtifact
from curriculum.expansion.settings import ExpansionSettings
from curriculum.retrieval.bm25 import build_bm25
from curriculum.retrieval.dense import Encoder, build_dense, embed_passages
from curriculum.retrieval.passages import COLUMNS
from curriculum.retrieval.settings import RetrievalSettings
from tests.adaptation.tiny_llama import CHAT, save_tiny

COUNT, THEMES = 30, ("rivers", "bridges", "castles", "gardens", "harbours")
TEXTS = {f"p{i}": f"name{i} about {THEMES[i % 5]} mark{i} sign{i}" for i in range(COUNT)}
ASKED = {f"q{i}": f"which of the {THEMES[i % 5]} number {i}" for i in range(12)}
SETTINGS = ExpansionSettings(queries=12, feedback_documents=3, feedback_terms=4, max_new_tokens=4)
ANSWERS = {ASKED[f"q{i}"]: f"mark{i} sign{i} name{i}" for i in range(12)}  # what one who knows would write


def passages(texts: dict[str, str] = TEXTS) -> pd.DataFrame:
    """Passages of the given id -> text."""
    rows = [{c: "" for c in COLUMNS} | {"passage_id": p, "collection": "project", "doc_id": p, "text": t, "position": 0} for p, t in texts.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def tracks() -> pd.DataFrame:
    """Twelve test queries, each with a passage of its own; two neighbours count as phrasings of one question."""
    rows = [
        {
            "track": "notes", "collection": "project", "query_id": q, "query": text, "split": "test", "kind": "",
            "relevant_ids": [f"p{i}"], "grades": [2], "doc_ids": [f"p{i}"], "group": f"g{i // 2}",
        }
        for i, (q, text) in enumerate(ASKED.items())
    ]  # fmt: skip
    return pd.DataFrame(rows)


def save_encoder(folder: Path) -> Path:
    """A sentence-transformers model that gives a text the mean of its words' random vectors: a BERT whose layer and positions add nothing."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    bert, marks = folder / "bert", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text in (*TEXTS.values(), *ASKED.values()) for word in text.split()})
    bert.mkdir(parents=True)
    (bert / "vocab.txt").write_text("\n".join([*marks, *words]))
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=len(marks) + len(words), **shape))
    layer, embeddings = model.encoder.layer[0], model.embeddings
    with torch.no_grad():
        for nothing in (embeddings.position_embeddings, embeddings.token_type_embeddings, layer.attention.output.dense, layer.output.dense):
            nothing.weight.zero_()
        embeddings.word_embeddings.weight[: len(marks)] = 0.0
    model.save_pretrained(bert)
    BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    made = SentenceTransformer(modules=[Transformer(str(bert), max_seq_length=64), Pooling(64, pooling_mode="mean")], device="cpu")
    made.save_pretrained(str(folder / "encoder"))
    return folder / "encoder"


def save_generator(folder: Path) -> Path:
    """A Llama of random weights with a chat template."""
    save_tiny(folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


@dataclass(frozen=True)
class Small:
    """The passages, indexed."""

    encoder: Path
    retrieval: RetrievalSettings
    bm25: IndexArtifact
    dense: IndexArtifact

    def encode(self) -> Encoder:
        return Encoder(self.encoder, self.retrieval)


def build_small(folder: Path) -> Small:
    """Both indexes and the encoder under ``folder``."""
    encoder = save_encoder(folder)
    retrieval = RetrievalSettings(encoder=f"path:{encoder}")
    for name in ("vectors", "kept", "bm25", "dense"):
        (folder / name).mkdir()
    made = embed_passages(passages(), Encoder(encoder, retrieval), retrieval, folder / "vectors", folder / "kept", lambda line: None)
    return Small(encoder, retrieval, build_bm25(passages(), retrieval, folder / "bm25"), build_dense(made, folder / "dense"))
