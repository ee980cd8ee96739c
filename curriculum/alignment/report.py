"""From the measurements of the alignment study to its record: metrics with intervals, tables, plots, remarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from curriculum.alignment.charts import plots
from curriculum.alignment.experiment import COMPARED, MODELS, Questions
from curriculum.alignment.settings import AlignmentSettings
from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.reading.metrics import f1
from curriculum.results import Identity, Metric, StudyResult

Scores = dict[str, np.ndarray]  # of what, a number a held-out question


def report(
    found: dict[str, Any], questions: Questions, leaked: dict[str, int], pairs: pd.DataFrame, settings: AlignmentSettings,
    *, seed: int, identities: list[Identity],
) -> StudyResult:  # fmt: skip
    """The record of what :meth:`Experiment.run` measured. ``found`` also has ``support`` (by the verifier) and ``parity``."""
    tables = questions.tables["test"]
    quality = {name: _f1(found["models"][name]["answers"], tables) for name in MODELS}
    judges = _judges(found, questions)
    wins = {name: _wins(found, quality, name) for name in COMPARED}
    metrics = [
        *(Metric(name=name, value=count, higher_is_better=False) for name, count in leaked.items()),
        *_ranking(judges, seed), *_steps(found, quality, wins, seed), *_policy(found, settings, quality, seed), *_dpo(found, judges, seed),
    ]  # fmt: skip
    result = StudyResult(
        study="alignment_study", metrics=metrics, settings=settings.model_dump(mode="json"), identities=identities, seeds=[seed],
        per_example=_per_example(tables, quality, judges, wins),
        tables={
            "models": _models(found, quality, wins), "judges": _judge_table(judges, found, questions), "curves": _curves(found),
            "pairs": pairs.groupby(["side", "kind"], as_index=False).agg(pairs=("pair_id", "size"), notes=("note_id", "nunique")),
            "answers": _answers(found, tables), "seconds": _seconds(found),
        },
    )  # fmt: skip
    result.plots = plots(result.tables["curves"], result, settings.kl_bound)
    result.remarks = _remarks(result, settings)
    return result


def _f1(answers: Sequence[str], tables: Sequence[pd.DataFrame]) -> np.ndarray:
    return np.array([f1(answer, list(rows["answers"].iloc[0])) for answer, rows in zip(answers, tables, strict=True)])


def ranked_right(scores: Sequence[Sequence[float]]) -> np.ndarray:
    """Share of a question's pairs whose first answer has the higher score, a tie counting half: [questions]."""
    return np.array([np.mean([(s[0] > other) + 0.5 * (s[0] == other) for other in s[1:]]) for s in scores])


def _judges(found: dict[str, Any], questions: Questions) -> Scores:
    """How each judge ranks the pairs of the held-out questions."""
    test = [answers for _, answers in questions.groups["test"]]
    lengths = [[len(answer) for answer in answers] for _, answers in questions.groups["preference"]]
    sign = 1 if ranked_right(lengths).mean() >= 0.5 else -1  # which length is the better one is learned from the training pairs
    scores = {name: found["models"][name]["scores"] for name in MODELS}
    per_token = [[s / len(a) for s, a in zip(some, answers, strict=True)] for some, answers in zip(scores["sft"], test, strict=True)]
    judged = {
        "reward": found["ranked"]["reward"], "blind": found["ranked"]["blind"], "length": [[sign * len(a) for a in some] for some in test],
        "sft_per_token": per_token, "verifier": found["support"]["ranked"], **scores,
    }  # fmt: skip
    return {name: ranked_right(values) for name, values in judged.items()}


def _wins(found: dict[str, Any], quality: Scores, name: str) -> Scores:
    """1 where the answer of ``name`` is better than that of the model it started from, 0.5 where equal; by each of three judges."""
    against = COMPARED[name]

    def compare(new: Sequence[float], old: Sequence[float]) -> np.ndarray:
        return 0.5 + 0.5 * np.sign(np.asarray(new) - np.asarray(old))

    support, rewards = found["support"]["models"], found["rewards"]
    same = np.array([a == b for a, b in zip(found["models"][name]["answers"], found["models"][against]["answers"], strict=True)])
    judged = {
        "answers": compare(quality[name], quality[against]), "verifier": compare(support[name], support[against]),
        "reward": compare(rewards[name]["greedy"], rewards[against]["greedy"]),
    }  # fmt: skip
    return {judge: np.where(same, 0.5, values) for judge, values in judged.items()}


def _mean(name: str, values: np.ndarray, seed: int, *, bound: bool = False, **more: Any) -> list[Metric]:
    """The mean over questions with its interval; with ``bound`` the interval's lower end as a metric of its own, ``NAME_low``."""
    low, high = bootstrap_mean(values, seed=seed)
    stem, _, of = name.partition("__")
    own = [Metric(name=f"{stem}_low{'__' + of if of else ''}", value=low, n=len(values))] if bound else []
    return [Metric(name=name, value=float(np.mean(values)), low=low, high=high, n=len(values), **more), *own]


def _gain(name: str, new: np.ndarray, old: np.ndarray, seed: int) -> list[Metric]:
    change = paired_bootstrap(new, old, seed=seed)
    stem, _, of = name.partition("__")
    low = Metric(name=f"{stem}_low{'__' + of if of else ''}", value=change.low, n=change.n)
    return [Metric(name=name, value=change.difference, low=change.low, high=change.high, n=change.n), low]


def _ranking(judges: Scores, seed: int) -> list[Metric]:
    metrics = _mean("reward_accuracy", judges["reward"], seed, bound=True)
    for name in ("length", "blind", "verifier"):
        metrics += _mean(f"pair_accuracy__{name}", judges[name], seed)
    for name in ("length", "blind", "sft"):
        metrics += _gain(f"reward_over__{name}", judges["reward"], judges[name], seed)
    return metrics


def _steps(found: dict[str, Any], quality: Scores, wins: dict[str, Scores], seed: int) -> list[Metric]:
    metrics = []
    for name in MODELS:
        metrics += _mean(f"answer_f1__{name}", quality[name], seed)
    for name in COMPARED:
        metrics += _mean(f"win_rate__{name}", wins[name]["answers"], seed, bound=True)
        metrics += _mean(f"verifier_win_rate__{name}", wins[name]["verifier"], seed)
        metrics += _mean(f"kl__{name}", np.array(found["models"][name]["kl"]), seed, unit="nats", higher_is_better=False)
    return metrics


def _policy(found: dict[str, Any], settings: AlignmentSettings, quality: Scores, seed: int) -> list[Metric]:
    rewards, metrics = found["rewards"], []
    for name in ("policy", "probe"):
        metrics += _gain(f"reward_gain__{name}", np.array(rewards[name]["sampled"]), np.array(rewards["sft"]["sampled"]), seed)
        metrics += _gain(f"f1_gain__{name}", quality[name], quality["sft"], seed)
    highest = {name: max(_highest(found, name), float(np.mean(found["models"][name]["kl"]))) for name in ("policy", "probe")}
    metrics += [Metric(name=f"highest_kl__{name}", value=value, unit="nats", higher_is_better=False) for name, value in highest.items()]
    ratio = highest["probe"] / highest["policy"] if highest["policy"] > 0 else math.inf
    held = {"kl_share_of_bound": highest["policy"] / settings.kl_bound, "probe_kl_over_policy": ratio}
    return metrics + [Metric(name=name, value=value, higher_is_better=name != "kl_share_of_bound") for name, value in held.items()]


def _highest(found: dict[str, Any], name: str) -> float:
    return max(record["kl"] for record in found["curves"][name]["records"])


def _dpo(found: dict[str, Any], judges: Scores, seed: int) -> list[Metric]:
    metrics = [Metric(name=name, value=value, higher_is_better=False) for name, value in found["parity"].items()]
    first = abs(found["curves"]["dpo"]["records"][0]["loss"] - math.log(2))
    metrics.append(Metric(name="first_loss_error", value=first, higher_is_better=False))
    for name in MODELS:
        metrics += _mean(f"preference_accuracy__{name}", judges[name], seed)
    metrics += _gain("preference_gain__dpo", judges["dpo"], judges["sft"], seed)
    ours, theirs = (np.array([[s[0], np.mean(s[1:])] for s in found["models"][name]["scores"]]) for name in ("dpo", "sft"))
    for place, name in enumerate(("chosen", "rejected")):
        low, high = bootstrap_mean((ours - theirs)[:, place], seed=seed)
        metrics.append(Metric(name=f"log_ratio__{name}", value=float((ours - theirs)[:, place].mean()), low=low, high=high, n=len(ours), unit="nats"))
    return metrics


def _models(found: dict[str, Any], quality: Scores, wins: dict[str, Scores]) -> pd.DataFrame:
    """A row a model: what it started from, how often it wins by whose judgement, and what its answers are like."""
    rows = []
    for name in MODELS:
        of, won = found["models"][name], wins.get(name, {})
        rows.append(
            {
                "model": name, "against": COMPARED.get(name, ""), "f1": float(quality[name].mean()),
                **{f"wins_by_{judge}": float(won[judge].mean()) if won else math.nan for judge in ("answers", "verifier", "reward")},
                "reward": float(np.mean(found["rewards"][name]["greedy"])), "support": float(np.mean(found["support"]["models"][name])),
                "words": float(np.mean([len(answer.split()) for answer in of["answers"]])), "ended": float(np.mean(of["ended"])),
                "different_answers": len(set(of["answers"])) / len(of["answers"]), "kl": float(np.mean(of["kl"])) if "kl" in of else math.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _judge_table(judges: Scores, found: dict[str, Any], questions: Questions) -> pd.DataFrame:
    """A row a judge: the share of held-out pairs it ranks rightly; of the reward model also by kind of the ungrounded answer."""
    rows = [{"judge": name, "kind": "all", "accuracy": float(values.mean()), "questions": len(values)} for name, values in judges.items()]
    right: dict[str, list[bool]] = {}
    for scores, table in zip(found["ranked"]["reward"], questions.tables["test"], strict=True):
        for score, kind in zip(scores[1:], table["kind"], strict=True):
            right.setdefault(kind, []).append(scores[0] > score)
    rows += [{"judge": "reward", "kind": kind, "accuracy": float(np.mean(r)), "questions": len(r)} for kind, r in sorted(right.items())]
    return pd.DataFrame(rows)


def _curves(found: dict[str, Any]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(curve["records"]).assign(stage=name) for name, curve in found["curves"].items()], ignore_index=True)


def _seconds(found: dict[str, Any]) -> pd.DataFrame:
    rows = [(f"train {name}", curve["seconds"]) for name, curve in found["curves"].items()]
    rows += [(f"measure {name}", of["seconds"]) for name, of in found["models"].items()]
    return pd.DataFrame(rows, columns=["step", "seconds"])


def _answers(found: dict[str, Any], tables: Sequence[pd.DataFrame], limit: int = 20) -> pd.DataFrame:
    rows = []
    for i, table in enumerate(tables[:limit]):
        row = table.iloc[0]
        said = {name: found["models"][name]["answers"][i] for name in MODELS}
        rows.append({"question": row["question"], "passage": row["passage"], "grounded": row["chosen"], **said})
    return pd.DataFrame(rows)


def _per_example(tables: Sequence[pd.DataFrame], quality: Scores, judges: Scores, wins: dict[str, Scores]) -> pd.DataFrame:
    columns = {f"answer_f1__{name}": values for name, values in quality.items()}
    columns |= {f"pairs_right__{name}": judges[name] for name in ("reward", "length", "blind", *MODELS)}
    columns |= {f"win__{name}": won["answers"] for name, won in wins.items()}
    firsts = [rows.iloc[0] for rows in tables]
    return pd.DataFrame({"example_id": [row["question_id"] for row in firsts], "group": [row["note_id"] for row in firsts], **columns})


def _remarks(result: StudyResult, settings: AlignmentSettings) -> list[str]:
    def text(name: str) -> str:
        found = result.metric(name)
        return found.text() if found else "not measured"

    remarks = [
        "Wins are counted by F1 with the accepted answers, which nothing here was trained on; a tie or the same answer counts half.",
        f"Of the held-out pairs the verifier ranks {text('pair_accuracy__verifier')} rightly; its win rates are worth what that is.",
        "KL is exact over the vocabulary, along answers sampled at temperature 1; each model is held against the one it started from. "
        f"The bound of {settings.kl_bound:g} nats an answer is the policy's; nothing bounds SFT, the probe without a penalty, or DPO but beta.",
        f"Probe without a penalty: reward {text('reward_gain__probe')}, F1 {text('f1_gain__probe')}; "
        f"with it: reward {text('reward_gain__policy')}, F1 {text('f1_gain__policy')}.",
        f"DPO moved the grounded answers by {text('log_ratio__chosen')} and the ungrounded ones by {text('log_ratio__rejected')}.",
    ]
    weak = {
        "reward_over_low__length": "The reward model is not told apart from one that counts tokens.",
        "reward_over_low__blind": "The reward model ranks the pairs as well beside another question: it judges the answer's form alone.",
        "reward_over_low__sft": "The reward model does not rank the pairs better than the SFT model's own log-probabilities do.",
        "reward_gain_low__policy": "The rise of the reward on held-out questions cannot be told from none.",
        "preference_gain_low__dpo": "The rise of the preference accuracy by DPO cannot be told from none.",
    }  # fmt: skip
    remarks += [said for name, said in weak.items() if not result.value(name) > 0]
    probe = result.metric("f1_gain__probe")
    if result.value("reward_gain_low__probe") > 0 and probe is not None and probe.high is not None:
        fell = "fell" if probe.high < 0 else "did not measurably rise" if not (probe.low or 0) > 0 else "rose too"
        remarks.append(f"Reward hacking: without a penalty the reward rose, and the answers' F1 {fell}.")
    return remarks
