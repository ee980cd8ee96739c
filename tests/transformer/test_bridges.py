"""transformers' weights in our blocks: equal outputs, everything accounted for, what we lack refused, and mistakes that show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from curriculum.errors import UserError
from curriculum.transformer.bridge_parity import CONDITIONS, PIECES, Batch, Condition, largest_difference, padding, random_batch
from curriculum.transformer.bridge_study import BROKEN, TEXTS, TOLERANCE, _batches
from curriculum.transformer.bridges import FAMILIES, bridge, read_reference, weights
from curriculum.transformer.bridges.llama import LLAMA, NAMES
from curriculum.transformer.bridges.toys import TOYS, VOCABULARY, toy
from curriculum.transformer.model import Transformer

torch.set_num_threads(1)
PLAIN = Condition("plain")


@pytest.mark.parametrize("name", TOYS)
def test_a_family_gives_transformers_outputs_padded_and_cached(name: str) -> None:
    theirs = toy(name, seed=3)
    ours, batches = bridge(theirs), _batches(name, Path(), seed=3)
    for condition in CONDITIONS:
        if not (name == "bert" and condition.ours_cached):
            assert largest_difference(theirs, ours, batches[condition.padded], condition) <= TOLERANCE, condition.name


@pytest.mark.parametrize("case", [case for case in BROKEN if case[0] in TOYS], ids=lambda case: f"{case[0]}: {case[1]}")
def test_one_wrong_field_of_the_configuration_exceeds_the_tolerance(case: tuple[str, str, dict[str, Any]]) -> None:
    name, _, change = case
    theirs = toy(name)
    right = bridge(theirs)
    assert all(getattr(right.config, field) != value for field, value in change.items())
    wrong = Transformer(replace(right.config, **change)).eval()
    wrong.load_state_dict(right.state_dict())
    batch = _batches(name, Path(), seed=0)[""]
    assert largest_difference(theirs, right, batch, PLAIN) <= TOLERANCE < largest_difference(theirs, wrong, batch, PLAIN)


def test_two_heads_swapped_by_mistake_are_seen() -> None:
    theirs, batch = toy("llama"), random_batch(VOCABULARY)
    ours = bridge(theirs)
    with torch.no_grad():
        rows = ours.decoder.blocks[1].attention.qkv.weight
        rows[:32] = rows[:32].view(2, 16, -1).flip(0).reshape(32, -1).clone()
    assert largest_difference(theirs, ours, batch, PLAIN) > TOLERANCE


def test_llama4_left_in_neighbouring_pairs_is_seen() -> None:
    theirs, batch = toy("llama4"), random_batch(VOCABULARY)
    unturned = replace(FAMILIES["llama4_text"], change=lambda name, value, config: value.transpose(1, 2) if ".experts." in name else value)
    assert largest_difference(theirs, weights.convert(theirs, unturned), batch, PLAIN) > TOLERANCE


def test_gpt2s_square_matrix_left_untransposed_is_seen() -> None:
    theirs, batch = toy("gpt2"), random_batch(VOCABULARY)
    family = FAMILIES["gpt2"]
    forgetful = replace(family, change=lambda name, value, config: value if "attn.c_proj" in name else family.change(name, value, config))
    assert largest_difference(theirs, weights.convert(theirs, forgetful), batch, PLAIN) > TOLERANCE


def test_a_padding_mask_that_is_forgotten_is_seen() -> None:
    theirs, padded = toy("bert"), random_batch(VOCABULARY, padded="left")
    ours = bridge(theirs)
    with torch.no_grad():
        masked = ours(padded.ids_BT, mask_BT=padded.mask_BT)
        assert float((masked - ours(padded.ids_BT))[padded.mask_BT].abs().max()) > TOLERANCE


def test_the_toys_reach_what_they_are_to_test() -> None:
    for name in ("mixtral", "llama4"):
        ours, routes = bridge(toy(name)), []
        with torch.no_grad():
            ours(random_batch(VOCABULARY).ids_BT, routes=routes)
        assert all(len(logits.topk(ours.config.experts_per_token).indices.unique()) == ours.config.experts for logits in routes) and routes
    llama4 = bridge(toy("llama4")).config
    assert {llama4.attention_kind(n) for n in range(5)} == {"chunk", "nope"} and {llama4.routed(n) for n in range(5)} == {True, False}
    assert bridge(toy("mistral")).config.window < sum(PIECES) < 40 and not bridge(toy("t5_v1_1")).config.tied and bridge(toy("t5")).config.tied
    assert set(TOYS) - {"llama_tied", "t5_v1_1"} == {name.removesuffix("_text") for name in FAMILIES}
    vectors = [value.detach() for value in toy("gpt2").parameters() if value.dim() == 1]
    assert all(float(value.std()) > 0.1 and float((value - 1).abs().max()) > 0.1 for value in vectors) and vectors


@pytest.mark.parametrize("name", ["mixtral", "t5_v1_1", "llama4", "bert"])
def test_a_saved_folder_gives_the_same_model(tmp_path: Path, name: str) -> None:
    theirs = toy(name)
    theirs.save_pretrained(tmp_path)
    ours, read = bridge(theirs), bridge(tmp_path)
    assert read.config == ours.config and all(torch.equal(read.state_dict()[key], value) for key, value in ours.state_dict().items())
    assert largest_difference(read_reference(tmp_path), read, _batches(name, Path(), seed=0)[""], PLAIN) <= TOLERANCE


def test_the_weights_are_copies() -> None:
    theirs = toy("llama_tied")
    ours = bridge(theirs)
    before = ours.embedding.weight.clone()
    with torch.no_grad():
        theirs.model.embed_tokens.weight.zero_()
    assert torch.equal(ours.embedding.weight, before)


def test_a_tensor_that_is_missing_unused_or_used_twice_is_named() -> None:
    theirs = toy("llama")
    doubled = {our: name.replace("k_proj", "q_proj") for our, name in NAMES.items()}
    with pytest.raises(ValueError, match=r"unused: layers.0.self_attn.k_proj.weight, .*used twice: layers.0.self_attn.q_proj.weight"):
        weights.convert(theirs, replace(LLAMA, names=lambda config: doubled))
    without = {our: name for our, name in NAMES.items() if our != "decoder.norm.weight"}
    with pytest.raises(ValueError, match=r"ours without a source: decoder.norm.weight; unused: norm.weight$"):
        weights.convert(theirs, replace(LLAMA, names=lambda config: without))
    theirs.model.extra = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(UserError, match=r"unused: extra$"):
        bridge(theirs)
    del theirs.model.norm.weight
    with pytest.raises(UserError, match=r"missing: norm.weight; unused: extra"):
        bridge(theirs)
    with pytest.raises(UserError, match=r"positions.weight \(161, 48\)"):
        larger = toy("gpt2")
        larger.config.n_positions = 161
        bridge(larger)


def test_a_tied_flag_that_the_weights_contradict_does_not_decide() -> None:
    theirs, batch = toy("llama_tied"), random_batch(VOCABULARY)
    theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight + 0.1)
    ours = bridge(theirs)
    assert theirs.config.tie_word_embeddings and not ours.config.tied and largest_difference(theirs, ours, batch, PLAIN) <= TOLERANCE


_ROPE = {"rope_type": "default", "rope_theta": 100.0}
_LONG = {"factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 100.0}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"rope_parameters": _LONG | {"rope_type": "dynamic"}}, "rope_type='dynamic' is not supported, only default, linear, yarn"),
    ("llama", {"rope_parameters": _ROPE | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    ("llama", {"rope_parameters": _LONG | {"rope_type": "yarn", "attention_factor": 1.0}}, "attention_factor=1.0 of rope_type='yarn'"),
    ("llama", {"hidden_act": "relu"}, "llama: the activation 'relu' of a gated block is not supported, only silu"),
    ("llama", {"attention_bias": True}, "llama: mlp_bias=False is not supported, only True"),
    ("llama4", {"moe_layers": [0, 3]}, r"moe_layers=\[0, 3\] is not supported"),
    ("llama4", {"attention_bias": True}, "attention_bias=True"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"activation_function": "silu"}, "the activation 'silu' of a plain block"),
    ("bert", {"is_decoder": True}, "bert: is_decoder=True is not supported, only False"),
    ("bert", {"hidden_act": "relu"}, "hidden_act='relu' is not supported, only 'gelu'"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ("qwen3", {"attention_bias": True}, "attention_bias=True"),
    ("t5", {"feed_forward_proj": "gated-relu"}, "the activation 'relu' of a gated block"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0]}-{next(iter(case[1]))}-{next(iter(case[1].values()))}"[:48])
def test_an_option_that_we_cannot_express_is_refused(case: tuple[str, dict[str, Any], str]) -> None:
    name, options, message = case
    with pytest.raises(UserError, match=message):
        bridge(toy(name, **options))


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_the_other_rope_scalings_carry_over(kind: str) -> None:
    theirs, batch = toy("llama", rope_parameters=_LONG | {"rope_type": kind, "beta_fast": 4.0}), random_batch(VOCABULARY)
    ours = bridge(theirs)
    assert ours.config.rope_scaling is not None and ours.config.rope_scaling.kind == kind
    assert largest_difference(theirs, ours, batch, PLAIN) <= TOLERANCE


def test_what_has_no_bridge_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, OPTConfig

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 11}
    with pytest.raises(UserError, match="class BertForSequenceClassification of 'bert'; there is for BertModel, BertForMaskedLM"):
        bridge(BertForSequenceClassification(BertConfig(**small)))
    OPTConfig(architectures=["OPTForCausalLM"]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no bridge for model_type 'opt'; there are bert, gpt2, t5, llama, llama4_text"):
        bridge(tmp_path)
    with pytest.raises(UserError, match=r"holds no config.json"):
        bridge(tmp_path / "absent")


def test_bert_without_a_head_drops_its_pooler_and_keeps_every_layer() -> None:
    from transformers import BertConfig, BertModel

    from curriculum.transformer.bridges.toys import randomise

    theirs = BertModel(BertConfig(**TOYS["bert"][1])).eval()
    randomise(theirs, 0)
    ours = bridge(theirs)
    assert not ours.config.head_transform and not any("pool" in name for name in ours.state_dict())
    assert largest_difference(theirs, ours, random_batch(VOCABULARY, padded="right"), PLAIN) <= TOLERANCE


def test_a_nan_in_one_layer_is_no_small_difference() -> None:
    for name, place in (("bert", "encoder.blocks.1.feed_forward.down.bias"), ("llama", "decoder.norm.weight")):
        theirs, batch = toy(name), random_batch(VOCABULARY)
        ours = bridge(theirs)
        with torch.no_grad():
            ours.get_parameter(place)[0] = torch.nan
        assert math.isnan(largest_difference(theirs, ours, batch, PLAIN)), name


def test_pieces_cover_a_batch_and_padding_lies_on_its_side() -> None:
    pieces = list(Batch(torch.arange(20)[None]).pieces())
    assert torch.cat([ids for ids, _, _ in pieces], 1).tolist() == [list(range(20))] and [end for _, _, end in pieces] == [7, 8, 9, 10, 13, 20]
    assert padding(torch.tensor([1, 3]), 3, "left").tolist() == [[False, False, True], [True, True, True]]
    assert padding(torch.tensor([1, 3]), 3, "right").tolist() == [[True, False, False], [True, True, True]]


def test_the_asset_with_a_small_decoder_of_ones_own(resources: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from assets.foundations import weight_bridges
    from curriculum.sources import model_folder
    from resources.artifact_store import read_value
    from tests.lineage import claims_on

    words = AutoTokenizer.from_pretrained(model_folder("packaged:minilm", tmp_path))
    decoder = tmp_path / "decoder"
    toy("llama", vocab_size=len(words)).save_pretrained(decoder)
    words.save_pretrained(decoder)
    checks = claims_on("weight_bridges")
    made = resources(bridges={"decoder": f"path:{decoder}"})
    done = dg.materialize([weight_bridges, *checks], resources=made, instance=dg.DagsterInstance.ephemeral())
    evaluations = done.get_asset_check_evaluations()
    assert done.success and len(evaluations) == len(checks) == 16 and all(e.passed for e in evaluations)
    store = made["artifacts"].store()
    result = read_value(store.manifest("weight_bridges"), store.path(store.manifest("weight_bridges")))
    parity, controls = result.tables["parity"], result.tables["controls"]
    assert len(parity) == len(result.per_example) == 12 * 7 + 3 + 3 and (parity["max_abs_error"] <= parity["tolerance"]).all()
    assert set(parity["family"]) == {"bert_minilm", "llama_smollm2", *TOYS} and parity["parameters"].max() > 22e6
    assert len(controls) == len(BROKEN) and (controls["error_over_tolerance"] > 1).all()
    assert {i.source for i in result.identities} == {"packaged:minilm", f"path:{decoder}"} and result.plots["errors"][:4] == b"\x89PNG"
    assert len({len(text) for text in TEXTS}) == len(TEXTS), "texts of one length would leave nothing to pad"
