"""Texts as a unit vector a token, by sentence-transformers' multi-vector encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from curriculum.late_interaction.settings import LateInteractionSettings


def is_multi_vector(folder: Path) -> bool:
    """Whether the files in ``folder`` say that the model was made for late interaction: Stanford's ColBERT, PyLate's, or the library's own."""

    def said(file: str, key: str) -> Any:
        path = folder / file
        return json.loads(path.read_text(encoding="utf-8")).get(key) if path.exists() else None

    architectures = said("config.json", "architectures") or []
    made_for = any(name == "HF_ColBERT" or name.endswith("ForRetrieval") for name in architectures)
    return made_for or said("config_sentence_transformers.json", "model_type") in {"ColBERT", "MultiVectorEncoder"}


class TokenEncoder:
    """Token vectors of unit length.

    A multi-vector model has its own projection, markers of query and passage, mask tokens that lengthen a query, and skipped
    punctuation. Of a sentence encoder every token of its last layer is taken, without a projection: it was trained for its pooled
    vector and not for this.
    """

    def __init__(self, folder: Path, settings: LateInteractionSettings, device: str = "cpu") -> None:
        from sentence_transformers import MultiVectorEncoder

        self.device, self._settings = device, settings
        self.made_for_maxsim = is_multi_vector(folder)
        self._model = (
            MultiVectorEncoder(str(folder), device=device, local_files_only=True)
            if self.made_for_maxsim
            else MultiVectorEncoder(device=device, **_tokens_of(folder, settings.max_tokens))
        )
        self._how: dict[str, Any] = {"batch_size": settings.batch_size, "show_progress_bar": False, "normalize_embeddings": True}

    def queries(self, texts: list[str]) -> list[Tensor]:
        """[tokens_i, dim] of each query, float32, on the encoder's device."""
        return [v.float() for v in self._model.encode_query(texts, prompt=self._settings.query_prompt, **self._how)]

    def passages(self, texts: list[str]) -> list[Tensor]:
        """[tokens_i, dim] of each passage, float32, on the CPU. The library batches them by length."""
        found = self._model.encode_document(texts, prompt=self._settings.passage_prompt, **self._how)
        return [v.float().cpu() for v in found]


def _tokens_of(folder: Path, max_tokens: int) -> dict[str, Any]:
    """The modules that give the tokens of a sentence encoder, and its own prompts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    sentence = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    transformer: Any = sentence[0]
    transformer.query_length = transformer.document_length = min(max_tokens, transformer.max_seq_length or max_tokens)
    modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return {"modules": modules, "prompts": dict(sentence.prompts)}
