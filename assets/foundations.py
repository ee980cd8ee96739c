"""Foundations: attention measured, a Transformer and word vectors trained from scratch, published shapes counted, weights read in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, ModelArtifact
    from curriculum.results import StudyResult

ABLATED = ("normalization", "feed_forward", "positional_encoding", "dropout", "embedding_layer", "mixture_of_experts")


@lineage_asset(group="foundations", kinds={"torch"}, settings="transformer", topics=("self_attention", "flash_attention"), pool="gpu")
def attention_study(lab: Lab) -> StudyResult:
    """Naive, tiled and fused attention: parity, growth of time and peak memory with the length, the roofline; on a GPU a Triton kernel too."""
    from curriculum.transformer.attention_study import attention_study

    precision = lab.profile.compute.precision
    return attention_study(lab.settings.attention, seed=lab.seed, progress=lab.progress, device=lab.device, precision=precision)


@lineage_asset(group="foundations", kinds={"torch", "safetensors"}, settings="transformer", topics=("language_model_families",), pool="gpu")
def mini_transformer(lab: Lab, tokenized_corpus: DirectoryArtifact) -> ModelArtifact:
    """A decoder-only Transformer from scratch (RMSNorm, RoPE, SwiGLU, grouped-query attention), trained on the packed corpus."""
    from curriculum.transformer.training import train_mini_transformer

    return train_mini_transformer(
        tokenized_corpus, lab.settings, seed=lab.seed, out=lab.out, checkpoints=lab.checkpoints, progress=lab.progress, device=lab.device
    )


@lineage_asset(group="foundations", kinds={"torch"}, settings="transformer", topics=("language_model_families",))
def mini_transformer_report(lab: Lab, mini_transformer: ModelArtifact, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """Bits per byte on held-out text against unigrams and Kneser-Ney 5-grams, speed, a probe of the mask, and samples."""
    from curriculum.transformer.report import mini_transformer_report

    return mini_transformer_report(mini_transformer, tokenized_corpus, lab.settings, seed=lab.seed)


@lineage_asset(group="foundations", kinds={"torch"}, topics=("gpt", "llama", "mistral", "bert", "t5"))
def shape_arithmetic(lab: Lab) -> StudyResult:
    """Parameters, KV cache, FLOPs and training memory of published shapes, beside the published counts and transformers' own."""
    from curriculum.transformer.shape_study import shape_study

    return shape_study(progress=lab.progress)


@lineage_asset(group="foundations", kinds={"torch", "huggingface"}, settings="bridges", topics=("bert", "gpt", "t5", "llama", "mistral"))
def weight_bridges(lab: Lab) -> StudyResult:
    """Weights of transformers' BERT, GPT-2, T5, Llama, Llama 4, Mistral, Mixtral, Gemma and Qwen in our blocks: outputs, padded and cached."""
    from curriculum.transformer.bridge_study import bridge_study

    encoder, decoder = lab.settings.encoder, lab.settings.decoder
    identities = [lab.identity(encoder, "encoder"), lab.identity(decoder, "model")]
    return bridge_study(lab.model(encoder), lab.model(decoder), seed=lab.seed, identities=identities, progress=lab.progress)


@lineage_asset(group="foundations", kinds={"torch"}, settings="transformer", topics=("tokenizers",), deep=True)
def vocabulary_study(lab: Lab, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """The vocabulary's size against bits per byte, at equal bytes of training text and of context; parameters and FLOPs a byte too."""
    from curriculum.transformer.vocabulary_study import vocabulary_study

    return vocabulary_study(tokenized_corpus, lab.settings.vocabulary, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(group="foundations", kinds={"torch"}, settings="ablations", topics=ABLATED, deep=True)
def ablation_study(lab: Lab, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """One part of a small Transformer changed at a time: norms, activations, positions, dropout, tying, experts; three seeds each."""
    from curriculum.transformer.ablation_study import ablation_study

    return ablation_study(tokenized_corpus, lab.settings, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(group="foundations", kinds={"torch"}, settings="families", topics=("language_model_families",), deep=True)
def family_study(lab: Lab, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """Next token, masked token and span corruption at one budget, each against n-grams on the same targets; probes of every mask."""
    from curriculum.transformer.family_study import family_study

    return family_study(tokenized_corpus, lab.settings, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(group="foundations", kinds={"yaml"}, settings="published", topics=("gemini", "gpt", "llama", "mistral", "t5", "bert"))
def model_families(lab: Lab) -> StudyResult:
    """Published facts of the families, each with its source, beside the arithmetic of the shapes that are open."""
    from curriculum.published.facts import load_models
    from curriculum.published.study import family_study

    return family_study(load_models(lab.dataset(lab.settings.source)), lab.identity(lab.settings.source, "facts"))


@lineage_asset(
    group="foundations", kinds={"torch"}, settings="static_embeddings", topics=("word2vec", "glove", "fasttext"), deep=True
)
def static_embeddings_study(lab: Lab, pydocs_corpus: pd.DataFrame) -> StudyResult:
    """Skip-gram, GloVe and fastText from scratch beside gensim's: word similarity, analogies, neighbours, words never seen."""
    from curriculum.cells import Cells
    from curriculum.corpora.readers import read_documents
    from curriculum.static_embeddings.sets import read_analogies, read_similarity
    from curriculum.static_embeddings.study import static_embeddings_study

    packaged = lab.settings.source == "packaged:pydocs"
    documents = pydocs_corpus if packaged else read_documents(lab.dataset(lab.settings.source))
    pairs, analogies = read_similarity(lab.dataset(lab.settings.similarity)), read_analogies(lab.dataset(lab.settings.analogies))
    result = static_embeddings_study(
        list(documents["text"]), pairs, analogies, lab.settings, seed=lab.seed, cells=Cells(lab.checkpoints, lab.progress)
    )
    sources = {"pairs": lab.settings.similarity, "analogies": lab.settings.analogies} | ({} if packaged else {"text": lab.settings.source})
    result.identities = [lab.identity(uri, role) for role, uri in sources.items()]
    return result
