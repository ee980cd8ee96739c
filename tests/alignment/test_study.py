"""The whole study on a tiny model and real notes: every claim has its number, a second run computes nothing, and sabotage is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curriculum.adaptation.model import load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.alignment.model import attach, group_of
from curriculum.alignment.pairs import preference_pairs
from curriculum.alignment.policy import Tokens, optimise
from curriculum.alignment.report import ranked_right
from curriculum.alignment.settings import AlignmentSettings
from curriculum.alignment.study import alignment_study
from curriculum.alignment.training import answer_log_probabilities, answer_rewards, train_dpo, train_reward, train_sft
from curriculum.corpora.notes import load_notes, load_questions
from curriculum.crossencoder.model import CrossEncoder
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.grounding.verifier import SupportVerifier
from curriculum.results import Metric, StudyResult
from curriculum.syllabus import Bar, load_syllabus
from tests.adaptation.tiny_llama import TEXTS, save_tiny
from tests.reading.tiny import tiny_bert

torch.set_num_threads(1)
NOTES = Path(__file__).parents[2] / "notes"
CLAIMS = {claim.metric: claim for claim in load_syllabus().claims if claim.asset == "alignment_study"}
TOY = AlignmentSettings(
    rank=4, alpha=32, batch_size=4, sft_rate=1e-2, reward_rate=1e-2, dpo_rate=1e-2, policy_rate=1e-2, policy_steps=20, group=32,
    prompts_a_step=2, max_new_tokens=1, kl_bound=2.0,
)  # fmt: skip
SMALL = TOY.model_copy(
    update={
        "passage_words": 12, "sft_questions": 4, "preference_questions": 6, "policy_questions": 4, "test_questions": 6, "policy_steps": 2, "group": 2,
        "max_new_tokens": 6, "verifier_questions": 3,
    }
)  # fmt: skip
TOKENS = Tokens(end=2, pad=2)
QUIET = {"pad": 2, "seed": 0, "report": lambda line: None}


def held(bar: Bar, value: float) -> bool:
    return judge_value(bar, StudyResult(study=bar.asset, metrics=[Metric(name=bar.metric, value=value)])).verdict is Verdict.PASSED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"), initializer_range=0.1)  # at the usual 0.02 its logits could hardly move


@pytest.fixture
def base(folder):
    return load_base(folder, AdapterSettings(quantisation="none"), device="cpu").eval()


@pytest.fixture(scope="module")
def pairs():
    """Of each prompt the answer with "sum" is better than the one with "none"; the last prompts are held out."""
    return [f"{text[:24]}:" for text in TEXTS], [" the sum", " none"]


@pytest.fixture(scope="module")
def groups(folder, pairs):
    tokenizer = load_tokenizer(folder)
    made = [group_of(tokenizer, prompt, pairs[1]) for prompt in pairs[0]]
    return made[:48], made[48:]


def swapped(groups):
    return [(prompt, answers[::-1]) for prompt, answers in groups]


@pytest.mark.parametrize("labels", ["right", "swapped"])
def test_a_reward_model_learns_what_it_is_told_and_swapped_labels_turn_the_check_red(base, groups, labels):
    model, head = attach(base, "reward", TOY, seed=0), torch.nn.Parameter(torch.zeros(64))
    train_reward(model, head, groups[0] if labels == "right" else swapped(groups[0]), TOY, **QUIET)
    accuracy = ranked_right(answer_rewards(model, head.detach(), groups[1], pad=2)).mean()
    assert held(CLAIMS["reward_accuracy_low"], float(accuracy)) == (labels == "right")


@pytest.mark.parametrize("labels", ["right", "swapped"])
def test_dpo_starts_at_ln_2_and_raises_the_accuracy_and_swapped_labels_turn_the_check_red(base, groups, labels):
    told = groups[0] if ranked_right(answer_log_probabilities(base, groups[1], pad=2)).mean() < 0.5 else swapped(groups[0])
    tested = groups[1] if told is groups[0] else swapped(groups[1])  # so that the untrained model is mostly wrong
    before = ranked_right(answer_log_probabilities(base, tested, pad=2)).mean()
    model = attach(base, "dpo", TOY, seed=0)
    records = train_dpo(model, told if labels == "right" else swapped(told), TOY, **QUIET)
    gain = float(ranked_right(answer_log_probabilities(model, tested, pad=2)).mean() - before)
    assert held(CLAIMS["first_loss_error"], abs(records[0]["loss"] - 0.6931472)) and before < 0.5
    assert (gain > 0) == (labels == "right")


def test_imitation_raises_the_shown_answer_over_the_other_for_prompts_never_seen(base, groups):
    assert ranked_right(answer_log_probabilities(base, groups[1], pad=2)).mean() == 0
    model = attach(base, "sft", TOY, seed=0)
    records = train_sft(model, groups[0] * 3, TOY, **QUIET)
    assert records[-1]["loss"] < records[0]["loss"] / 2
    assert ranked_right(answer_log_probabilities(model, groups[1], pad=2)).mean() == 1


def policy_run(base, groups, beta: float) -> list[dict[str, float]]:
    """A judge that likes odd tokens: easy to please, and easy to overdo."""
    model = attach(base, "policy", TOY, seed=0)

    def by_oddity(model, some):
        return [[sum(token % 2 for token in answer) / len(answer) for answer in answers] for _, answers in some]

    prompts = [prompt for prompt, _ in groups[0]]
    return optimise(model, "policy", prompts, by_oddity, TOY, beta=beta, tokens=TOKENS, seed=0, report=lambda line: None)


def test_the_reward_rises_the_penalty_keeps_kl_under_its_bound_and_without_it_the_check_is_red(base, folder, groups):
    free = policy_run(base, groups, beta=0.0)
    kept = policy_run(load_base(folder, AdapterSettings(quantisation="none"), device="cpu").eval(), groups, beta=3.0)
    assert free[0]["kl"] == kept[0]["kl"] == pytest.approx(0, abs=1e-6)
    highest = {name: max(r["kl"] for r in records) / TOY.kl_bound for name, records in (("free", free), ("kept", kept))}
    assert not held(CLAIMS["kl_share_of_bound"], highest["free"]) and held(CLAIMS["kl_share_of_bound"], highest["kept"]), highest
    first, last = (sum(r["reward"] for r in part) / 4 for part in (free[:4], free[-4:]))
    assert last > first + 0.2


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    return SupportVerifier(CrossEncoder.start(tiny_bert(tmp_path_factory.mktemp("bert")), max_length=32, seed=0), window_words=30)


def test_every_claim_gets_its_number_and_a_second_run_trains_and_measures_nothing(folder, verifier, tmp_path):
    notes = load_notes(NOTES)
    table = preference_pairs(notes, load_questions(NOTES, notes), passage_words=12, seed=0)
    lines: list[str] = []
    run = {"seed": 0, "checkpoints": tmp_path, "progress": lines.append}
    result = alignment_study(table, folder, verifier, SMALL, **run)
    missing = {name for name in CLAIMS if judge_value(CLAIMS[name], result).verdict is Verdict.MISSING}
    assert not missing and {claim.topic for claim in CLAIMS.values()} == {"instruct_tuning", "rlhf", "dpo"}
    for name in ("leaked_notes", "leaked_prompts", "trl_loss_error", "trl_grpo_loss_error", "first_loss_error"):
        assert judge_value(CLAIMS[name], result).verdict is Verdict.PASSED, name
    assert set(result.plots) == {"reward", "kl", "accuracy", "quality"} and all(len(png) < 50_000 for png in result.plots.values())
    assert list(result.tables["models"]["model"]) == ["base", "sft", "policy", "probe", "dpo"] and len(result.per_example) == 6
    assert not any("kept from before" in line for line in lines)
    lines.clear()
    again = alignment_study(table, folder, verifier, SMALL, **run)
    assert again.metrics == result.metrics and all("kept from before" in line for line in lines) and len(lines) == 14
