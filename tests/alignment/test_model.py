"""Answers that share their prompt's computation, and decoding, give what plain passes give."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from curriculum.adaptation.model import load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.alignment.model import adapter, answer_logits, attach, decode, group_of, hidden_states, merged, rows_of
from curriculum.alignment.settings import AlignmentSettings
from curriculum.alignment.stages import Stages
from curriculum.alignment.training import answer_log_probabilities
from tests.adaptation.tiny_llama import TEXTS, save_tiny

torch.set_num_threads(1)
SETTINGS = AlignmentSettings(rank=2, alpha=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(folder):
    return load_base(folder, AdapterSettings(quantisation="none"), device="cpu").eval()


@pytest.fixture(scope="module")
def groups(folder):
    tokenizer = load_tokenizer(folder)
    return [group_of(tokenizer, TEXTS[0], ["7", "the sum of them", "none"]), group_of(tokenizer, TEXTS[1][:20], ["arguments", "0"])]


def test_answers_beside_each_other_score_as_they_do_alone(model, groups):
    together = answer_log_probabilities(model, groups, pad=2)
    for (prompt, answers), scores in zip(groups, together, strict=True):
        for answer, score in zip(answers, scores, strict=True):
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            alone = sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))
            assert score == pytest.approx(alone, abs=1e-4)


def test_the_last_state_of_an_answer_is_the_one_it_has_alone(model, groups):
    rows = rows_of(groups, pad=2)
    states = hidden_states(model, rows)[rows.last]
    (prompt, answers), number = groups[0], 1
    alone = model.model(torch.tensor([prompt + answers[number]])).last_hidden_state[0, -1]
    assert torch.allclose(states[number], alone, atol=1e-5)
    shifted = rows_of([(prompt[1:], answers), groups[1]], pad=2)
    assert not torch.allclose(hidden_states(model, shifted)[shifted.last][number], alone, atol=1e-3)


def test_greedy_decoding_equals_generate_whatever_the_padding(model, groups):
    prompts = [prompt for prompt, _ in groups]
    made = decode(model, prompts, end=2, pad=2, limit=9)
    for prompt, answer in zip(prompts, made, strict=True):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=9, do_sample=False, use_cache=True, eos_token_id=2, pad_token_id=2)
        assert answer == theirs[0, len(prompt) :].tolist()


def test_samples_follow_the_models_distribution_and_the_seed(model, groups):
    prompt = groups[1][0]
    drawn = [decode(model, [prompt], end=2, pad=2, limit=1, each=4000, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    expected = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    share = torch.bincount(torch.tensor(drawn[0]).flatten(), minlength=300) / 4000
    assert (share - expected).abs().max() < 0.02


def test_a_decoded_answer_ends_with_its_end_token_and_says_nothing_after_it(model, groups):
    made = decode(model, [p for p, _ in groups], end=2, pad=2, limit=200, each=3, generator=torch.Generator().manual_seed(0))
    assert len(made) == 6 and any(len(a) < 200 for a in made)
    assert all(2 not in a[:-1] and (a[-1] == 2 or len(a) == 200) for a in made)


def test_a_new_adapter_changes_nothing_and_roles_do_not_touch_each_other(model, groups):
    rows = rows_of(groups, pad=2)
    with torch.no_grad():
        before = answer_logits(model, rows)
        first = attach(model, "sft", SETTINGS, seed=0)
        assert torch.equal(answer_logits(first, rows), before)
        for parameter in adapter(first, "sft").values():
            parameter.add_(0.05)
        changed = answer_logits(first, rows)
        assert not torch.allclose(changed, before, atol=1e-3)
        second = attach(merged(first), "policy", SETTINGS, seed=0)
        assert torch.allclose(answer_logits(second, rows), changed, atol=1e-4)
        attach(second, "dpo", SETTINGS, seed=0)
    assert {name for name, p in second.named_parameters() if p.requires_grad} == set(adapter(second, "dpo"))


def test_a_trained_step_is_kept_and_a_damaged_file_is_trained_again(tmp_path):
    weights, calls = {"a": torch.nn.Parameter(torch.zeros(3))}, []

    def train():
        calls.append(1)
        with torch.no_grad():
            weights["a"].fill_(5.0)
        return {"records": [1.5]}

    assert Stages(tmp_path).get("step", {"x": 1}, weights, train) == {"records": [1.5]}
    again = {"a": torch.nn.Parameter(torch.zeros(3))}
    assert Stages(tmp_path).get("step", {"x": 1}, again, train) == {"records": [1.5]} and len(calls) == 1
    assert torch.equal(again["a"], torch.full((3,), 5.0))
    Stages(tmp_path).get("step", {"x": 2}, weights, train)
    (first, *_), before = sorted(tmp_path.iterdir()), len(calls)
    assert before == 2 and json.dumps(list(load_file(first))) == '["a"]'
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-4])
    Stages(tmp_path).get("step", {"x": 1}, weights, train)
    assert len(calls) == 3
