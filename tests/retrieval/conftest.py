"""A sentence-transformers model with random weights, and the packaged notes searched by the packaged encoder."""

from __future__ import annotations

import string
from pathlib import Path

import pandas as pd
import pytest
import torch

from curriculum.corpora.documents import COLUMNS as DOCUMENTS
from curriculum.corpora.notes import load_notes, load_questions
from curriculum.results import StudyResult
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import HybridRetriever
from curriculum.retrieval.passages import project_passages
from curriculum.retrieval.report import hybrid_report
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.retrieval.tracks import build_tracks
from curriculum.sources import model_folder
from tests.retrieval.small import Searchable

NOTES = Path(__file__).parents[2] / "notes"
SETTINGS = RetrievalSettings(max_queries=30, known_items=0)
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT, mean pooling, no normalisation; its files name a prompt for queries and one for documents."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    bert, folder = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("encoder")
    letters = list(string.ascii_lowercase + string.digits + ":.")
    (bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]))
    config = BertConfig(
        vocab_size=5 + 2 * len(letters), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(bert)
    BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    transformer = Transformer(str(bert), max_seq_length=128)
    prompts = {"query": "ask: ", "document": "tell: "}
    made = SentenceTransformer(modules=[transformer, Pooling(16, pooling_mode="mean")], prompts=prompts, device="cpu")
    made.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def notes() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Twelve of the packaged notes, from every side of the split, and their questions."""
    found = load_notes(NOTES)
    asked = load_questions(NOTES, found)
    chosen = {note for _, rows in asked.groupby("split") for note in sorted(rows["note_id"].unique())[:4]}
    return found[found["doc_id"].isin(chosen)].reset_index(drop=True), asked[asked["note_id"].isin(chosen)].reset_index(drop=True)


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(model_folder(SETTINGS.encoder, tmp_path_factory.mktemp("models")), SETTINGS)


@pytest.fixture(scope="session")
def searchable(notes: tuple[pd.DataFrame, pd.DataFrame], minilm: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Searchable:
    """BM25 and MiniLM over the notes."""
    from curriculum.retrieval.bm25 import build_bm25
    from curriculum.retrieval.dense import build_dense, embed_passages

    made, settings = {name: tmp_path_factory.mktemp(name) for name in ("bm25", "embeddings", "dense", "checkpoints")}, SETTINGS
    passages = project_passages(notes[0], pd.DataFrame(columns=DOCUMENTS, dtype=str), settings)
    tracks = build_tracks(passages, notes[1], pd.DataFrame(), [], settings.max_queries)
    build_bm25(passages, settings, made["bm25"])
    embeddings = embed_passages(passages, minilm, settings, made["embeddings"], made["checkpoints"], lambda _: None)
    build_dense(embeddings, made["dense"])
    return Searchable(settings, passages, tracks, embeddings, made["bm25"], made["dense"])


@pytest.fixture(scope="session")
def healthy(searchable: Searchable, minilm: Encoder) -> StudyResult:
    """The report on it."""
    retriever = HybridRetriever(searchable.bm25, searchable.dense, minilm)
    return hybrid_report(
        retriever, searchable.passages, searchable.tracks, searchable.settings, seed=0, identities=[], progress=lambda _: None
    )
