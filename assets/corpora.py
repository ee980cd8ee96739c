"""Corpora: the Python documentation, the study notes, tokenizers, and the packed and domain corpora made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="corpora", kinds={"python", "parquet"}, settings="corpora")
def pydocs_corpus(lab: Lab) -> pd.DataFrame:
    """The Python language reference and the docstrings of the standard library and of installed libraries, deduplicated."""
    from curriculum.corpora.pydocs import collect_pydocs

    return collect_pydocs(lab.settings, progress=lab.progress)


@lineage_asset(group="corpora", kinds={"markdown", "parquet"}, settings="corpora")
def notes_corpus(lab: Lab) -> pd.DataFrame:
    """The study notes, one document each."""
    from curriculum.corpora.notes import load_notes

    return load_notes(lab.dataset(lab.settings.notes))


@lineage_asset(group="corpora", kinds={"yaml", "parquet"}, settings="corpora")
def notes_questions(lab: Lab, notes_corpus: pd.DataFrame) -> pd.DataFrame:
    """Questions over the notes: answerable, unanswerable, with a false premise, and in Russian; split by note."""
    from curriculum.corpora.notes import load_questions
    from curriculum.corpora.schemas import conform

    return conform(load_questions(lab.dataset(lab.settings.notes), notes_corpus), "notes_questions")


@lineage_asset(group="corpora", kinds={"yaml", "parquet"}, settings="corpora", topics=("multi_hop",))
def two_hop_questions(lab: Lab, notes_corpus: pd.DataFrame) -> pd.DataFrame:
    """Questions that need passages of two notes of one side, each with both supporting places."""
    from curriculum.corpora.schemas import conform
    from curriculum.corpora.two_hop import load_two_hop

    return conform(load_two_hop(lab.dataset(lab.settings.notes), notes_corpus), "two_hop_questions")


@lineage_asset(group="corpora", kinds={"yaml", "parquet"}, settings="corpora", topics=("faithfulness",))
def labelled_claims(lab: Lab, notes_corpus: pd.DataFrame) -> pd.DataFrame:
    """Claims about passages of the notes, each labelled as supported or not, with the reason and the readers' labels."""
    from curriculum.corpora.claims import load_claims
    from curriculum.corpora.schemas import conform

    return conform(load_claims(lab.dataset(lab.settings.notes), notes_corpus), "labelled_claims")


@lineage_asset(group="corpora", kinds={"pandera"}, settings="corpora", topics=("annotation", "deduplication"))
def notes_study(
    lab: Lab,
    notes_corpus: pd.DataFrame,
    notes_questions: pd.DataFrame,
    two_hop_questions: pd.DataFrame,
    prompt_cases: pd.DataFrame,
    labelled_claims: pd.DataFrame,
) -> StudyResult:
    """Counts by kind, leakage between the sides of the split, and the agreement of the claims' readers."""
    from curriculum.corpora.notes_study import study_notes

    tables = (notes_corpus, notes_questions, two_hop_questions, prompt_cases, labelled_claims)
    return study_notes(*tables, near_duplicate=lab.settings.leakage_jaccard, seed=lab.seed)


@lineage_asset(group="corpora", kinds={"babel", "parquet"}, settings="corpora", topics=("tokenizers",))
def russian_corpus(lab: Lab) -> pd.DataFrame:
    """Russian text: the messages of JupyterLab's language pack, or the folder that the profile names."""
    from curriculum.corpora.russian import load_russian

    return load_russian(lab.dataset(lab.settings.russian_source), lab.settings.russian_source)


@lineage_asset(group="corpora", kinds={"huggingface"}, settings=("tokenization", "corpora"), topics=("tokenizers",))
def tokenizers_study(
    lab: Lab, pydocs_corpus: pd.DataFrame, notes_corpus: pd.DataFrame, notes_questions: pd.DataFrame, russian_corpus: pd.DataFrame
) -> StudyResult:
    """Byte-level BPE, WordPiece and Unigram trained on code documentation, English prose and Russian, and measured on what they did not see."""
    from curriculum.corpora.readers import read_documents
    from curriculum.tokenization.sources import study_texts
    from curriculum.tokenization.study import compare_tokenizers

    packaged = lab.settings.source == "packaged:pydocs"
    own = None if packaged else read_documents(lab.dataset(lab.settings.source))
    corpora, asked = study_texts(pydocs_corpus, notes_corpus, notes_questions, russian_corpus, own)
    identities = [lab.identity(uri, "corpus") for uri in (lab.profile.corpora.notes, lab.profile.corpora.russian_source)]
    return compare_tokenizers(
        corpora, lab.settings, seed=lab.seed, foreign=asked, identities=identities, progress=lab.progress
    )  # fmt: skip


@lineage_asset(
    group="corpora", kinds={"huggingface", "safetensors"}, settings="tokenization", topics=("tokenizers", "deduplication")
)
def tokenized_corpus(lab: Lab, pydocs_corpus: pd.DataFrame) -> DirectoryArtifact:
    """Packed blocks of token ids, split by document with near-duplicates on one side.

    The notes are left out: they are what models are later asked about.
    """
    from curriculum.corpora.readers import read_documents
    from curriculum.tokenization.packing import build_tokenized_corpus

    packaged = lab.settings.source == "packaged:pydocs"
    documents = pydocs_corpus if packaged else read_documents(lab.dataset(lab.settings.source))
    return build_tokenized_corpus(documents, lab.settings, lab.out, progress=lab.progress)


@lineage_asset(group="corpora", kinds={"parquet"}, settings="corpora", topics=("domain_adaptation",))
def domain_corpus(lab: Lab, pydocs_corpus: pd.DataFrame) -> pd.DataFrame:
    """The text the adapter is tuned and tested on: Python documentation, or the folder the profile names."""
    from curriculum.corpora.domain import build_domain_corpus
    from curriculum.corpora.readers import read_documents

    packaged = lab.settings.domain_source == "packaged:pydocs"
    documents = pydocs_corpus if packaged else read_documents(lab.dataset(lab.settings.domain_source))
    return build_domain_corpus(documents, lab.settings, packaged=packaged)
