from __future__ import annotations

import pytest
import torch

from curriculum.adaptation.ledger import LLAMA3_8B, ModelShape, adapter_parameters, layer_activations, predict, total
from curriculum.adaptation.model import add_adapter, block_loss, load_base, trainable
from curriculum.adaptation.settings import AdapterSettings
from tests.adaptation.tiny_llama import config, save_tiny

torch.set_num_threads(1)
SMALL = AdapterSettings(rank=4, block_size=32, logit_chunk=8)


def kept_for_backward(model: torch.nn.Module, blocks: torch.Tensor, settings: AdapterSettings) -> int:
    """Bytes of the storages that autograd saves in a forward pass, the model's own weights apart."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    own |= {b.untyped_storage().data_ptr() for b in model.buffers()}
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = block_loss(model, blocks, chunk=settings.logit_chunk)
        assert torch.isfinite(loss)
    return sum(s.nbytes() for address, s in saved.items() if address not in own)


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4}, {"num_hidden_layers": 3, "intermediate_size": 192}])
def test_predicted_activations_are_what_autograd_saves(tmp_path, changes):
    model = add_adapter(load_base(save_tiny(tmp_path, **changes), SMALL, device="cpu"), SMALL, seed=0)
    blocks = torch.randint(300, (1, 33))
    shape = ModelShape.of(model.get_base_model().config)
    ends = 32 * (4 * shape.hidden + 8 * shape.head_dim)
    predicted = ends + shape.layers * 32 * layer_activations(shape, SMALL, 4)
    assert kept_for_backward(model, blocks, SMALL) == pytest.approx(predicted, rel=0.02)


def test_predicted_activations_in_bfloat16(tmp_path):
    from transformers import AutoModelForCausalLM

    save_tiny(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).requires_grad_(False)
    model = add_adapter(base, SMALL, seed=0)
    shape = ModelShape.of(base.config)
    with torch.autocast("cpu", torch.bfloat16):
        kept = kept_for_backward(model, torch.randint(300, (1, 33)), SMALL)
    copies = 2 * adapter_parameters(shape, SMALL)
    predicted = 32 * (2 * shape.hidden + 4 * shape.head_dim) + shape.layers * 32 * layer_activations(shape, SMALL, 2) + copies
    assert kept == pytest.approx(predicted, rel=0.02)


def test_weights_and_adapters_are_what_is_loaded(tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 512}
    model = load_base(save_tiny(tmp_path, **sizes), SMALL, device="cpu")
    held = 0
    for part in model.modules():
        for weight in part.parameters(recurse=False):
            state = getattr(weight, "quant_state", None)
            held += weight.numel() * weight.element_size() if part is not model.lm_head else 0  # tied: counted once
            if state is not None:
                held += state.absmax.numel() + 4 * (state.state2.absmax.numel() + state.code.numel() + 1)
    adapted = add_adapter(model, SMALL, seed=0)
    shape = ModelShape.of(config(**sizes))
    predicted = sum(row.bytes for row in predict(shape, SMALL) if row.part.startswith("weights"))
    assert held == pytest.approx(predicted, rel=0.001)
    assert sum(p.numel() for p in trainable(adapted).values()) == adapter_parameters(shape, SMALL)


def test_checkpointing_keeps_one_tensor_a_layer(tmp_path):
    on = SMALL.model_copy(update={"gradient_checkpointing": True})
    model = add_adapter(load_base(save_tiny(tmp_path), on, device="cpu"), on, seed=0)
    kept = kept_for_backward(model, torch.randint(300, (1, 33)), on)
    shape = ModelShape.of(model.get_base_model().config)
    assert kept < 0.5 * shape.layers * 32 * layer_activations(shape, on, 4)
    assert total(predict(shape, on)) < total(predict(shape, SMALL))


def test_llama3_8b_fits_twelve_gigabytes():
    rows = predict(LLAMA3_8B, AdapterSettings(gradient_checkpointing=True), value_bytes=2)
    codes = next(row.bytes for row in rows if "NF4 codes" in row.part)
    others = next(row.bytes for row in rows if "not quantised" in row.part)
    assert 2 * codes + others // 2 == 8_030_261_248  # the parameters Meta-Llama-3-8B has
    assert total(rows) < 12e9
    assert total(predict(LLAMA3_8B, AdapterSettings(quantisation="none"), value_bytes=2)) > 12e9


def test_rows_follow_the_settings():
    shape = ModelShape.of(config())
    pages = {row.part: row.bytes for row in predict(LLAMA3_8B, AdapterSettings(), paged=True)}
    # of an 8B model's adapters only the feed-forward's wide sides are large enough for pages
    assert pages["optimizer"] == 2 * 4 * (adapter_parameters(LLAMA3_8B, AdapterSettings()) - 32 * 3 * 16 * 14_336)
    parts = {row.part: row.bytes for row in predict(shape, SMALL)}
    double = {row.part: row.bytes for row in predict(shape, SMALL.model_copy(update={"rank": 8}))}
    assert double["adapters"] == 2 * parts["adapters"] and parts["optimizer"] == 2 * parts["gradients"]
    longer = {row.part: row.bytes for row in predict(shape, SMALL.model_copy(update={"block_size": 64}))}
    assert longer["activations"] == 2 * parts["activations"]
