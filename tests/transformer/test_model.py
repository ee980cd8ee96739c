"""The mini-Transformer against transformers' Llama, its cache, its mask, and the n-grams it is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curriculum.transformer import blocks
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer, leak_probe, load_model, save_model
from curriculum.transformer.ngram import KneserNey
from curriculum.transformer.positions import rope_angles, rotate

torch.set_num_threads(1)
CONFIG = ModelConfig(vocab_size=61, layers=2, width=32, heads=4, kv_heads=2, hidden=48)


def tiny(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(CONFIG).eval()


def llama_weights(model: Transformer) -> dict[str, torch.Tensor]:
    """Our weights under the names transformers gives them."""
    names = {
        "attention_norm": ["input_layernorm"], "feed_forward_norm": ["post_attention_layernorm"], "attention.out": ["self_attn.o_proj"],
        "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "feed_forward.up": ["mlp.gate_proj", "mlp.up_proj"], "feed_forward.down": ["mlp.down_proj"],
    }
    weights = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.decoder.norm.weight}
    for number, block in enumerate(model.decoder.blocks):
        for name, value in block.named_parameters():
            theirs = names[name.removesuffix(".weight")]
            parts = value.split([32, 16, 16]) if len(theirs) == 3 else value.chunk(len(theirs))
            weights |= {f"model.layers.{number}.{their}.weight": part for their, part in zip(theirs, parts, strict=True)}
    return {name: value.detach() for name, value in weights.items()} | {"lm_head.weight": model.embedding.weight.detach()}


def test_logits_equal_transformers_llama_from_the_same_weights() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    ours = tiny()
    for norm in [m for m in ours.modules() if isinstance(m, blocks.RMSNorm)]:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    shape = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=True)).eval()
    llama.load_state_dict(llama_weights(ours))
    ids = torch.randint(61, (2, 19))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), llama(ids).logits, atol=1e-4, rtol=0)
    assert sum(p.numel() for p in ours.parameters()) == CONFIG.parameters()


def test_the_cache_gives_the_same_logits_as_the_whole_sequence() -> None:
    model, ids = tiny(), torch.randint(61, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(ids)
        first, cache = model.step(ids[:, :5])
        rest, cache = model.step(ids[:, 5:9], cache)
        last, _ = model.step(ids[:, 9:], cache)
    torch.testing.assert_close(torch.cat((first, rest, last), 1), whole, atol=1e-5, rtol=0)


def test_greedy_generation_follows_the_whole_sequences_argmax() -> None:
    model = tiny()
    ids = model.generate([3, 1, 4], 6)
    with torch.no_grad():
        assert ids[3:] == [int(model(torch.tensor([ids[:n]]))[0, -1].argmax()) for n in range(3, 9)]
    assert model.generate([3], 5, temperature=1.0, seed=1) == model.generate([3], 5, temperature=1.0, seed=1)


def test_a_model_that_has_generated_can_still_be_trained() -> None:
    model = tiny()
    model.generate([3, 1, 4], 12)
    assert not any(buffer.is_inference() for buffer in model.buffers())
    model(torch.randint(61, (1, 9))).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_probe_is_zero_for_a_causal_model_and_sees_a_broken_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    assert leak_probe(model, 61) <= 1e-5
    monkeypatch.setattr(blocks, "fused_attention", lambda q, k, v, mask=None, causal=False, dropout=0.0: real(q, k, v))
    assert leak_probe(model, 61) > 1e-3


real = blocks.fused_attention


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(at: int, to: int) -> float:
        turned = [rotate(x, *rope_angles(torch.tensor([p]), 16, 10_000.0)) for x, p in ((q, at), (k, to))]
        return float((turned[0] * turned[1]).sum())

    assert score(7, 3) == pytest.approx(score(107, 103), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 6), abs=1e-4)


def test_a_saved_model_loads_to_the_same_logits(tmp_path: Path) -> None:
    model, ids = tiny(), torch.arange(10)[None]
    save_model(model, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids), model(ids))
    assert {p.suffix for p in tmp_path.iterdir()} == {".safetensors", ".json"}


@given(order=st.integers(1, 4), ids=st.lists(st.integers(0, 6), min_size=5, max_size=60), context=st.lists(st.integers(0, 6), max_size=4))
def test_kneser_ney_sums_to_one_after_any_context(order: int, ids: list[int], context: list[int]) -> None:
    model = KneserNey(order, 7).fit([ids])
    short = tuple(context[-(order - 1) :]) if order > 1 else ()
    total = sum(model.probability(short, token) for token in range(7))
    assert total == pytest.approx(1.0, abs=1e-9)


def test_kneser_ney_prefers_what_it_saw_and_counts_continuations() -> None:
    model = KneserNey(2, 5).fit([[0, 1, 0, 1, 0, 1, 2, 3, 4, 3]])
    assert model.probability((0,), 1) > 0.7 > model.probability((0,), 4)
    assert np.isfinite(model.nats([0, 1, 4, 4])).all() and len(model.nats([0, 1, 4, 4])) == 3
    # 1 occurs most but follows one token only; 3 follows two: in a new context 3 is likelier
    assert model.probability((99,), 3) > model.probability((99,), 1)
