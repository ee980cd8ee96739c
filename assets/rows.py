"""Studies that are tables: an asset whose partitions are the rows, and one that compares the rows there are.

Neither is in the lineage: rows are made by a backfill (``curriculum backfill fusion_row --all``), which makes the table last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.lineage import Lab, PerProfile, lineage_asset
from assets.prompting import generator_of, kit_of
from curriculum.rows.registry import ROW_STUDIES, own_corpora

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact
    from curriculum.results import Identity, StudyResult
    from curriculum.rows.settings import RowSettings

OWN_CORPORA = "own_corpora"
TUNING_TOPICS = ("full_finetuning", "lora", "qlora", "prefix_tuning", "prompt_tuning", "p_tuning_v2", "adapters")
TUNING_COLUMNS = (
    "perplexity", "accuracy", "macro_f1", "trainable_parameters", "trainable_share", "peak_memory_gb", "training_seconds", "tokens_per_second"
)  # fmt: skip
TRACK_COLUMNS = ("bm25_ndcg_at_10", "dense_ndcg_at_10", "ndcg_at_10", "recall_at_100", "mrr")


def rows_of(asset: str) -> Callable[[Any], dg.PartitionsDefinition]:
    """The partitions of a row-maker under a profile, as the registry names them."""
    study = ROW_STUDIES[asset]
    if study.dynamic:
        return lambda profile: dg.DynamicPartitionsDefinition(name=OWN_CORPORA)
    return lambda profile: dg.StaticPartitionsDefinition(study.keys(profile))


def part_of(settings: RowSettings, prefix: str, model: str = "") -> dict[str, Any]:
    """The settings that one row reads: those whose names begin with ``prefix``, of the models only its own."""
    found = {name: value for name, value in settings.model_dump(mode="json").items() if name.startswith(prefix)}
    return found | ({"embedding_models": found["embedding_models"].get(model)} if model else {})


@lineage_asset(group="search", kinds={"parquet"}, settings="retrieval", pool="gpu", deep=True)
def leg_hits(
    lab: Lab, retrieval_tracks: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact
) -> pd.DataFrame:
    """What BM25 and the encoder find for every query: searched once, fused by every row of the fusion table."""
    from curriculum.reranking.first_stage import retriever_over
    from curriculum.rows.search import leg_hits

    retriever = retriever_over(bm25_index, dense_index, lab.settings, model=lab.model, device=lab.device)
    return leg_hits(retriever, retrieval_tracks, lab.settings.depth, lab.progress)


@lineage_asset(group="search", kinds={"mteb"}, settings="retrieval", topics=("hybrid_search",), partitions=rows_of("fusion_row"))
def fusion_row(lab: Lab, leg_hits: pd.DataFrame, retrieval_tracks: pd.DataFrame) -> StudyResult:
    """One leg, or one fusion of both, on every retrieval track."""
    from curriculum.rows.search import fusion_row

    return fusion_row(lab.partition, leg_hits, retrieval_tracks, lab.settings, seed=lab.seed, identities=_encoder(lab, lab.settings.encoder))


@lineage_asset(group="search", topics=("hybrid_search",), deep=True)
def fusion_table(lab: Lab, fusion_row: dict[str, StudyResult | None]) -> StudyResult:
    """The fusions side by side."""
    from curriculum.rows.comparison import comparison

    return comparison("fusion_table", fusion_row, by="ndcg_at_10", seed=lab.seed)


@lineage_asset(
    group="search", kinds={"mteb"}, settings="retrieval", topics=("hybrid_search",), pool="gpu", partitions=rows_of("retrieval_track_row")
)
def retrieval_track_row(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact
) -> StudyResult:
    """Both legs and every fusion on one track."""
    from curriculum.reranking.first_stage import retriever_over
    from curriculum.rows.search import track_row

    retriever = retriever_over(bm25_index, dense_index, lab.settings, model=lab.model, device=lab.device)
    known = _encoder(lab, dense_index.facts["encoder"])
    return track_row(lab.partition, retriever, passages, retrieval_tracks, lab.settings, seed=lab.seed, identities=known, progress=lab.progress)


@lineage_asset(group="search", topics=("hybrid_search",), deep=True)
def retrieval_track_table(lab: Lab, retrieval_track_row: dict[str, StudyResult | None]) -> StudyResult:
    """The tracks side by side: how hard each is, and what fusing gains on it."""
    from curriculum.rows.comparison import comparison

    return comparison("retrieval_track_table", retrieval_track_row, by="ndcg_at_10", show=TRACK_COLUMNS, seed=lab.seed)


@lineage_asset(
    group="search", kinds={"torch"}, settings="retrieval", topics=("sentence_embeddings",), pool="gpu",
    partitions=rows_of("embedding_model_row"), partition_settings=lambda profile, model: part_of(profile.rows, "embedding_", model),
)  # fmt: skip
def embedding_model_row(lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame) -> StudyResult:
    """One embedding model alone, on test queries of the headline track."""
    from curriculum.rows.search import embedding_row

    source = lab.profile.rows.embedding_models[lab.partition].source
    return embedding_row(
        lab.partition, lab.model(source), passages, retrieval_tracks, lab.settings, lab.profile.rows, seed=lab.seed, device=lab.device,
        identities=_encoder(lab, source), checkpoints=lab.checkpoints, progress=lab.progress,
    )  # fmt: skip


@lineage_asset(group="search", topics=("sentence_embeddings",), deep=True)
def embedding_model_table(lab: Lab, embedding_model_row: dict[str, StudyResult | None]) -> StudyResult:
    """The embedding models side by side."""
    from curriculum.rows.comparison import comparison

    return comparison("embedding_model_table", embedding_model_row, by="ndcg_at_10", seed=lab.seed)


@lineage_asset(
    group="prompting", kinds={"huggingface"}, settings=("prompting", "generator", "retrieval"), topics=("chain_of_thought",), pool="gpu",
    partitions=rows_of("prompt_pattern_row"),
)  # fmt: skip
def prompt_pattern_row(lab: Lab, prompt_cases: pd.DataFrame, passages: pd.DataFrame, bm25_index: IndexArtifact) -> StudyResult:
    """One prompt pattern over the prompt study's sample of the cases."""
    from curriculum.rows.prompting import pattern_row

    return pattern_row(lab.partition, prompt_cases, kit_of(lab, passages, bm25_index), identities=generator_of(lab), progress=lab.progress)


@lineage_asset(group="prompting", topics=("hallucination_rate",), deep=True)
def prompt_pattern_table(lab: Lab, prompt_pattern_row: dict[str, StudyResult | None]) -> StudyResult:
    """The prompt patterns side by side."""
    from curriculum.rows.comparison import comparison

    return comparison("prompt_pattern_table", prompt_pattern_row, by="hallucination_rate", score="hallucinated", seed=lab.seed)


@lineage_asset(
    group="prompting", kinds={"huggingface"}, settings="generator", topics=("decoding_parameters",), pool="gpu",
    partitions=rows_of("decoding_row"), partition_settings=lambda profile, way: part_of(profile.rows, "decoding_"),
)  # fmt: skip
def decoding_row(lab: Lab, passages: pd.DataFrame) -> StudyResult:
    """One way of decoding: quality and variety of the continuations of notes."""
    from curriculum.rows.decoding import decoding_row

    return decoding_row(
        lab.partition, passages, lab.generator(), lab.profile.rows, seed=lab.seed, identities=generator_of(lab), progress=lab.progress
    )


@lineage_asset(group="prompting", topics=("decoding_parameters",), deep=True)
def decoding_table(lab: Lab, decoding_row: dict[str, StudyResult | None]) -> StudyResult:
    """The ways of decoding side by side."""
    from curriculum.rows.comparison import comparison

    return comparison("decoding_table", decoding_row, by="reference_f1", seed=lab.seed)


@lineage_asset(
    group="finetuning", kinds={"huggingface"}, pool="gpu", topics=TUNING_TOPICS, partitions=rows_of("peft_row"),
    partition_settings=lambda profile, method: profile.tuning.of(method),
)  # fmt: skip
def peft_row(lab: Lab, domain_corpus: pd.DataFrame, notes_corpus: pd.DataFrame, notes_questions: pd.DataFrame) -> StudyResult:
    """One way of fine-tuning on two tasks: what is trained, memory, seconds, and quality over the seeds."""
    from curriculum.tuning.row import peft_row
    from curriculum.tuning.tasks import question_parts, read_labelled

    s = lab.profile.tuning
    packaged = s.classification == "packaged:notes"
    labelled = question_parts(notes_questions, notes_corpus) if packaged else read_labelled(lab.dataset(s.classification))
    known = [lab.identity(s.base, "base model"), lab.identity(s.encoder, "encoder"), lab.identity(s.classification, "labelled texts")]
    return peft_row(
        lab.partition, domain_corpus, labelled, s, base=lab.model(s.base), encoder=lab.model(s.encoder), device=lab.device,
        precision=lab.profile.compute.precision, seed=lab.seed, identities=known, checkpoints=lab.checkpoints, progress=lab.progress,
    )  # fmt: skip


@lineage_asset(group="finetuning", topics=TUNING_TOPICS, deep=True)
def peft_table(lab: Lab, peft_row: dict[str, StudyResult | None]) -> StudyResult:
    """The ways of fine-tuning side by side, on equal steps and batches."""
    from curriculum.rows.comparison import comparison

    return comparison("peft_table", peft_row, by="perplexity", score="score", show=TUNING_COLUMNS, seed=lab.seed)


@lineage_asset(
    group="search", kinds={"lucene", "faiss"}, settings="retrieval", pool="gpu",
    partitions=rows_of("own_corpus_row"), partition_settings=lambda profile, name: own_corpora(profile).get(name),
)  # fmt: skip
def own_corpus_row(lab: Lab) -> StudyResult:
    """One corpus of the user's own: both legs and every fusion, on its judgements or on known items of its text."""
    from curriculum.errors import UserError
    from curriculum.rows.corpora import corpus_row

    source = own_corpora(lab.profile).get(lab.partition)
    if source is None:
        raise UserError(f"the corpus '{lab.partition}' is gone from the profile's section rows; name it there, or delete the partition")
    model = lab.model(lab.settings.encoder)
    known = [*_encoder(lab, lab.settings.encoder), lab.identity(source, "collection")]
    with tempfile.TemporaryDirectory() as work:
        return corpus_row(
            lab.partition, lab.dataset(source), model, lab.settings, Path(work), device=lab.device, checkpoints=lab.checkpoints,
            seed=lab.seed, identities=known, progress=lab.progress,
        )  # fmt: skip


@lineage_asset(group="search", deep=True)
def own_corpus_table(lab: Lab, own_corpus_row: dict[str, StudyResult | None]) -> StudyResult:
    """The user's corpora side by side."""
    from curriculum.rows.comparison import comparison

    return comparison("own_corpus_table", own_corpus_row, by="ndcg_at_10", show=TRACK_COLUMNS, seed=lab.seed)


ROW_MAKERS: dict[str, PerProfile] = {
    "fusion_row": fusion_row, "retrieval_track_row": retrieval_track_row, "embedding_model_row": embedding_model_row,
    "prompt_pattern_row": prompt_pattern_row, "decoding_row": decoding_row, "peft_row": peft_row,
    "own_corpus_row": own_corpus_row,
}  # fmt: skip


def _encoder(lab: Lab, source: str) -> list[Identity]:
    return [lab.identity(source, "encoder")]
