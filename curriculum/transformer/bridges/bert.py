"""BERT (Devlin et al., 2018): post-norm encoder with learned positions and segments; the masked-token head where there is one.

The pooler is dropped: it is one more layer on the first token, trained for a task that our model does not have.
"""

from __future__ import annotations

from typing import Any

from curriculum.transformer.bridges.weights import Family, activation, layers, require
from curriculum.transformer.config import ModelConfig


def _config(theirs: Any, tied: bool | None) -> ModelConfig:
    require(theirs, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    head = tied is not None
    if head:
        require(theirs, hidden_act="gelu")  # the head's own activation is fixed in our model
    return ModelConfig(
        vocab_size=theirs.vocab_size, layers=theirs.num_hidden_layers, width=theirs.hidden_size, heads=theirs.num_attention_heads,
        kv_heads=theirs.num_attention_heads, hidden=theirs.intermediate_size, norm_eps=theirs.layer_norm_eps, stack="encoder", norm="layer",
        norm_place="post", activation=activation(theirs, theirs.hidden_act, gated=False), position="learned",
        max_positions=theirs.max_position_embeddings, biases=True, segments=theirs.type_vocab_size, embedding_norm=True, tied=tied is not False,
        head_transform=head,
    )  # fmt: skip


BERT = Family(
    classes=("BertModel", "BertForMaskedLM"),
    config=_config,
    names=lambda theirs: {
        "embedding.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "segments.weight": "embeddings.token_type_embeddings.weight",
        "embedding_norm.*": "embeddings.LayerNorm.*",
        "transform.*": "cls.predictions.transform.dense.*",
        "transform_norm.*": "cls.predictions.transform.LayerNorm.*",
        "output_bias": "cls.predictions.bias",
        "output.weight": "cls.predictions.decoder.weight",
    }
    | layers("encoder", "encoder.layer", {
        "attention.qkv.*": "attention.self.query.* attention.self.key.* attention.self.value.*",
        "attention.out.*": "attention.output.dense.*",
        "attention_norm.*": "attention.output.LayerNorm.*",
        "feed_forward.up.*": "intermediate.dense.*",
        "feed_forward.down.*": "output.dense.*",
        "feed_forward_norm.*": "output.LayerNorm.*",
    }),
    dropped=("pooler.dense.weight", "pooler.dense.bias"),
)
