"""How often an instruction planted in a passage is followed: a probe of what is served, on shipped cases and on BIPIA.

    python -m curriculum.serving.injection [--profile starter] [--bipia path:DIR] [--cases 20]

Each case is answered twice, from its passage and from its passage with the attack (Yi et al., 2023, https://arxiv.org/abs/2312.14197).
Quoting and defusing are compared with the plain prompt. No figure here is a promise: a language model may follow any text it reads.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from curriculum.errors import DataError
from curriculum.evaluation.statistics import clopper_pearson
from curriculum.serving.answers import Clock, answer
from curriculum.sources import dataset_folder

if TYPE_CHECKING:
    from curriculum.serving.bundle import Bundle, Writer

_CASES = Path(__file__).with_name("injection.yaml")
_EMAILS, _ATTACKS = "email_test.jsonl", "text_attack_test.json"


@dataclass(frozen=True)
class Case:
    """A passage that answers the question, and an instruction planted behind it. ``canary`` "": no rule tells whether it was followed."""

    id: str
    question: str
    passage: str
    attack: str
    canary: str = ""


def shipped() -> list[Case]:
    """The cases that come with the package."""
    return [Case(**case) for case in yaml.safe_load(_CASES.read_text(encoding="utf-8"))]


def bipia(source: str, count: int, seed: int = 0) -> list[Case]:
    """``count`` e-mails of BIPIA's test set, each with one of its text attacks behind it, both drawn by ``seed``.

    Raises:
        DataError: the folder does not hold the two files, or they are not as BIPIA writes them.
    """
    folder = dataset_folder(source)
    try:
        emails = [json.loads(line) for line in (folder / _EMAILS).read_bytes().split(b"\n") if line]
        attacks = json.loads((folder / _ATTACKS).read_text(encoding="utf-8"))
        planted = [(kind, text) for kind, texts in sorted(attacks.items()) for text in texts]
        draw = random.Random(seed)
        pairs = [(draw.choice(emails), draw.choice(planted)) for _ in range(count)]
        return [Case(f"{i}: {kind}", e["question"].removeprefix("Q: "), e["context"], text) for i, (e, (kind, text)) in enumerate(pairs)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{folder} is no copy of BIPIA's benchmark folder ({error!r}): it needs {_EMAILS} and {_ATTACKS}") from error


def probe(cases: Iterable[Case], bundle: Bundle, writers: Mapping[str, Writer]) -> pd.DataFrame:
    """One row a case and writer: whether the draft, and what the verifier lets out of it, holds the canary (None without one), whether
    the attack changed what is given out, and both texts."""
    rows = []
    for case in cases:
        for name, write in writers.items():
            (_, clean), (draft, given) = (
                _texts(bundle, write, case.question, text) for text in (case.passage, f"{case.passage}\n\n{case.attack}")
            )
            followed, let_out = (case.canary.lower() in text.lower() if case.canary else None for text in (draft, given))
            rows.append({"case": case.id, "writer": name, "followed": followed, "let_out": let_out, "changed": given != clean, "clean": clean,
                         "draft": draft, "given": given})  # fmt: skip
    return pd.DataFrame(rows)


def _texts(bundle: Bundle, write: Writer, question: str, passage: str) -> tuple[str, str]:
    """The draft from one passage, and what of it the verifier supports."""
    alone = replace(bundle, texts={"case": passage}, write=write)
    said = list(answer(alone, question, ["case"], withhold=False, clock=Clock()))
    return " ".join(s.text for s in said), " ".join(s.text for s in said if s.supported)


def rates(found: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Of each writer: the share of cases with its exact 95% interval, for each of the three findings that any case has."""
    summary: dict[str, dict[str, object]] = {}
    for writer, rows in found.groupby("writer"):
        summary[str(writer)] = {"cases": len(rows)}
        for name in ("followed", "let_out", "changed"):
            known = rows[name].dropna()
            if len(known):
                hits = int(known.astype(bool).sum())
                low, high = clopper_pearson(hits, len(known))
                summary[str(writer)][name] = {"of": len(known), "share": hits / len(known), "low": low, "high": high}
    return summary


def main() -> None:
    from curriculum.cli import _store, home
    from curriculum.profile import load_profile
    from curriculum.rag.answerers import GeneratorAnswerer
    from curriculum.serving.bundle import Bundles
    from curriculum.serving.quoting import QuotingAnswerer
    from curriculum.sources import model_folder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="starter")
    parser.add_argument("--bipia", default="", help="path: source of BIPIA's benchmark folder")
    parser.add_argument("--cases", type=int, default=20, help="cases drawn from BIPIA")
    asked = parser.parse_args()
    profile = load_profile(asked.profile)
    bundles = Bundles(_store(profile), profile, lambda uri: model_folder(uri, home() / "models"))
    bundle = bundles.load(bundles.promoted())
    writers: dict[str, Writer] = {"served": bundle.write}
    if isinstance(owner := getattr(bundle.write, "__self__", None), QuotingAnswerer):
        plain = GeneratorAnswerer(owner.generator, max_new_tokens=owner.max_new_tokens, passage_words=owner.passage_words, seed=owner.seed)
        writers["plain prompt"] = lambda question, contexts: iter([plain.answer([question], [contexts])[0].text])
    sets = {"shipped": shipped(), **({"bipia": bipia(asked.bipia, asked.cases, profile.seed)} if asked.bipia else {})}
    print(json.dumps({name: rates(probe(cases, bundle, writers)) for name, cases in sets.items()}, indent=1))


if __name__ == "__main__":
    main()
