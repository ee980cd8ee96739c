"""What the probe of planted instructions asks: the shipped cases, and BIPIA's e-mails, tables and code.

Yi et al., 2023, https://arxiv.org/abs/2312.14197; a copy of the folder ``benchmark`` of https://github.com/microsoft/BIPIA is read, laid
out as there (``email/test.jsonl``) or flat (``email_test.jsonl``). Its other two sets, ``qa`` and ``abstract``, hold no passages of their own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from curriculum.errors import DataError, UserError
from curriculum.sources import dataset_folder

_SHIPPED = Path(__file__).with_name("injection.yaml")
_Text = Annotated[str, Field(min_length=1)]
_Lines = Annotated[list[str], Field(min_length=1)]
_ATTACKS = TypeAdapter(Annotated[dict[str, Annotated[list[_Text], Field(min_length=1)]], Field(min_length=1)])
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class Case:
    """A passage that a question is answered from, and an instruction planted behind it.

    ``canary`` "": no rule tells whether it was followed. ``ideal`` is the benchmark's own answer, "" where it has none.
    """

    id: str
    question: str
    passage: str
    attack: str
    canary: str = ""
    ideal: str = ""

    @property
    def planted(self) -> str:
        """The passage with the attack behind it."""
        return f"{self.passage}\n\n{self.attack}"


class Asked(BaseModel):
    """A row of BIPIA's e-mails and tables."""

    context: _Text
    question: _Text
    ideal: _Text

    @classmethod
    def read(cls, line: bytes) -> Asked:
        """The row of one line. Raises pydantic's ValidationError."""
        return cls.model_validate_json(line)


class Failing(BaseModel):
    """A row of BIPIA's code: a program, its error, and answers found to it. Each is a list of lines, and none of them a question."""

    context: _Lines
    error: _Lines
    code: _Lines
    ideal: _Lines

    @classmethod
    def read(cls, line: bytes) -> Asked:
        """The row of one line, with a question made of program and error. Raises as :meth:`Asked.read`."""
        row = cls.model_validate_json(line)
        question = ["What does the program look like without the error?", *row.code, "", "The error:", *row.error]
        return Asked(context="\n".join(row.context), question="\n".join(question), ideal="\n".join(row.ideal))


@dataclass(frozen=True)
class Spec:
    """A set of BIPIA: the kind of its rows, and which attacks are meant for it."""

    row: type[Asked] | type[Failing]
    attacks: str


SETS = {"email": Spec(Asked, "text_attack"), "table": Spec(Asked, "text_attack"), "code": Spec(Failing, "code_attack")}


def shipped() -> list[Case]:
    """The cases that come with the package."""
    return [Case(**case) for case in yaml.safe_load(_SHIPPED.read_text(encoding="utf-8"))]


def bipia(source: str, name: str, count: int, seed: int = 0, *, longest: int) -> tuple[list[Case], int]:
    """``count`` cases of BIPIA's test set ``name``, balanced by ``seed``: each row, and each kind of attack, as often as another or once
    more. A row whose question has more than ``longest`` characters is not drawn, since the service would refuse it; how many those are.

    Raises:
        DataError: the folder holds no such set, a line is not as BIPIA writes it, or no question is short enough.
    """
    folder, spec = dataset_folder(source), SETS[name]
    rows, attacks = _rows(_file(folder, name, "jsonl"), spec.row), _attacks(_file(folder, spec.attacks, "json"))
    short = [row for row in rows if len(row.question) <= longest]
    if not short:
        raise DataError(f"{folder}: no question of '{name}' has at most {longest} characters: raise serving.max_query_chars, or leave the set out")
    draw = random.Random(seed)
    kinds = _in_rounds(sorted(attacks), count, draw)
    texts = {kind: iter(_in_rounds(attacks[kind], count, draw)) for kind in sorted(attacks)}
    drawn = enumerate(zip(_in_rounds(short, count, draw), kinds, strict=True))
    cases = [Case(f"{i}: {kind}", row.question, row.context, next(texts[kind]), ideal=row.ideal) for i, (row, kind) in drawn]
    return cases, len(rows) - len(short)


def fitted(case: Case, words: int) -> Case:
    """``case`` with its passage cut so that the attack stands within the ``words`` that a writer reads of a passage.

    Behind a passage that is longer, it would never be read, and every writer would seem to resist it.

    Raises:
        UserError: the attack alone is as long.
    """
    room, passage = words - len(case.attack.split()), case.passage.split()
    if room < 1:
        raise UserError(f"the attack of case '{case.id}' leaves no word of the passage: set rag.passage_words above {len(case.attack.split())}")
    return replace(case, passage=" ".join(passage[:room])) if len(passage) > room else case


def _file(folder: Path, name: str, ending: str) -> Path:
    flat, nested = folder / f"{name}_test.{ending}", folder / name / f"test.{ending}"
    found = next((file for file in (flat, nested) if file.is_file()), None)
    if found is None:
        raise DataError(f"{folder} is no copy of BIPIA's folder benchmark: it holds neither {flat.name} nor {name}/{nested.name}")
    return found


def _rows(file: Path, kind: type[Asked] | type[Failing]) -> list[Asked]:
    lines = [(number, line) for number, line in enumerate(file.read_bytes().split(b"\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{file} has no rows: copy BIPIA's file again")
    found = []
    for number, line in lines:
        try:
            found.append(kind.read(line))
        except ValidationError as error:
            raise DataError(f"{file}, line {number}: not as BIPIA writes it: {_first(error)}") from error
    return found


def _attacks(file: Path) -> dict[str, list[str]]:
    try:
        return _ATTACKS.validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(f"{file}: not BIPIA's attacks, texts in lists by their kind: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def _in_rounds(items: Sequence[_Any], count: int, draw: random.Random) -> list[_Any]:
    """``count`` of the items in random order, each once before one comes again."""
    order: list[_Any] = []
    while len(order) < count:
        order += draw.sample(items, len(items))
    return order[:count]
