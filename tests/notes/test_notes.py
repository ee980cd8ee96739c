"""The study notes are documentation, corpus and test set at once; these checks hold what the other parts rely on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from curriculum.site.build import read_notes as site_notes
from curriculum.site.path import learning_order

ROOT = Path(__file__).resolve().parents[2]
NOTES = ROOT / "notes"
NOTE_IDS = sorted(path.stem for path in NOTES.glob("*.md") if path.stem != "README")
QUESTION_KINDS = {"answerable": 8, "unanswerable": 2, "false_premise": 1, "russian": 1}
CLAIM_KINDS = {"swapped-number", "neighbouring-fact", "over-generalisation", "negation"}
DIFFICULTIES = {"easy", "medium", "hard"}
SPLITS = {"train", "dev", "test"}
MARKUP = re.compile(r"[`*|\[\]]")


def read_yaml(name: str):
    return yaml.safe_load((NOTES / name).read_text(encoding="utf-8"))


def read_note(note_id: str) -> tuple[dict, str]:
    """The front matter and the body of a note."""
    opening, front, body = (NOTES / f"{note_id}.md").read_text(encoding="utf-8").split("---\n", 2)
    assert opening == "", f"{note_id}: a note opens with its front matter"
    return yaml.safe_load(front), body


def normalise(text: str) -> str:
    """A question without case, punctuation and spacing, to see whether two are the same."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


@pytest.fixture(scope="module")
def syllabus() -> dict[str, dict]:
    parts = yaml.safe_load((ROOT / "syllabus.yaml").read_text(encoding="utf-8"))["parts"]
    return {topic["id"]: {**topic, "part": part["id"]} for part in parts for topic in part["topics"]}


@pytest.fixture(scope="module")
def assets() -> set[str]:
    from pipelines.definitions import build_definitions

    return {key.to_user_string() for key in build_definitions("starter").resolve_asset_graph().get_all_asset_keys()}


@pytest.fixture(scope="module")
def notes() -> dict[str, tuple[dict, str]]:
    return {note_id: read_note(note_id) for note_id in NOTE_IDS}


@pytest.fixture(scope="module")
def questions() -> dict[str, list[dict]]:
    return {note_id: read_yaml(f"{note_id}.questions.yaml") for note_id in NOTE_IDS}


@pytest.fixture(scope="module")
def splits() -> dict[str, str]:
    return read_yaml("splits.yaml")


def test_every_topic_has_a_note(notes, syllabus):
    assert set(notes) == set(syllabus) and len(notes) == 87


def test_the_learning_path_has_an_order():
    assert len(learning_order(site_notes(NOTES))) == len(NOTE_IDS)


@pytest.mark.parametrize("note_id", NOTE_IDS)
class TestNote:
    def test_front_matter_agrees_with_the_syllabus(self, note_id, notes, syllabus):
        front, _ = notes[note_id]
        assert set(front) == {"id", "title", "part", "links", "prerequisites", "assets"}
        assert front["id"] == note_id
        assert front["title"] == syllabus[note_id]["title"]
        assert front["part"] == syllabus[note_id]["part"]
        assert front["links"] == syllabus[note_id]["links"]

    def test_assets_exist(self, note_id, notes, assets):
        front, body = notes[note_id]
        assert set(front["assets"]) <= assets
        assert set(re.findall(r"`([a-z0-9_]+)`", body)) & assets == set(front["assets"])
        assert front["assets"] or "No asset of this project measures this topic yet" in body

    def test_prerequisites_are_topics(self, note_id, notes, syllabus):
        prerequisites = notes[note_id][0]["prerequisites"]
        assert set(prerequisites) <= set(syllabus)
        assert note_id not in prerequisites

    def test_links_parse(self, note_id, notes):
        for link in notes[note_id][0]["links"]:
            address = urlsplit(link)
            assert address.scheme in {"http", "https"} and "." in address.netloc, link

    def test_length(self, note_id, notes):
        body = notes[note_id][1]
        prose = re.sub(r"^```.*?^```$", "", body, flags=re.MULTILINE | re.DOTALL)
        assert 400 <= len(prose.split()) <= 800
        assert len(body.split()) <= 900

    def test_sections(self, note_id, notes):
        headings = re.findall(r"^## (.+)$", notes[note_id][1], flags=re.MULTILINE)
        assert headings[0] == "The idea" and headings[-1] == "Exercises"
        assert {"When it fails", "How this project measures it"} <= set(headings)

    def test_questions_have_the_agreed_kinds(self, note_id, questions):
        assert Counter(question["kind"] for question in questions[note_id]) == QUESTION_KINDS
        for question in questions[note_id]:
            assert set(question) == {"id", "question", "phrasings", "kind", "difficulty", "answers"}, question["id"]
            assert question["id"].startswith(f"{note_id}-")
            assert question["difficulty"] in DIFFICULTIES
            assert len(question["phrasings"]) >= (2 if question["kind"] == "answerable" else 1), question["id"]
            is_cyrillic = bool(re.search("[а-яА-Я]", question["question"]))
            assert is_cyrillic == (question["kind"] == "russian"), question["id"]

    def test_every_answer_is_one_place_of_the_note(self, note_id, notes, questions):
        _, body = notes[note_id]
        for question in questions[note_id]:
            assert bool(question["answers"]) == (question["kind"] in {"answerable", "russian"}), question["id"]
            places = [body.find(answer) for answer in question["answers"]]
            assert -1 not in places, f"{question['id']}: {question['answers']} is not in the note"
            # The first, fullest answer fixes the place; a shorter variant must lie inside it.
            for answer in question["answers"][:1]:
                edges = rf"(?<!\w){re.escape(answer)}(?!\w)"
                assert len(re.findall(edges, body)) == body.count(answer) == 1, f"{question['id']}: {answer!r} is ambiguous"
            for answer in question["answers"]:
                assert "\n" not in answer and not MARKUP.search(answer), f"{question['id']}: {answer!r}"
                assert answer in question["answers"][0] or body.count(answer) == 1, f"{question['id']}: {answer!r}"

    def test_no_question_copies_a_sentence(self, note_id, notes, questions):
        words = normalise(notes[note_id][1])
        for question in questions[note_id]:
            for text in [question["question"], *question["phrasings"]]:
                tokens = normalise(text).split()
                runs = (" ".join(tokens[i : i + 7]) for i in range(len(tokens) - 6))
                assert [run for run in runs if run in words] == [], question["id"]


def test_no_two_questions_are_the_same(questions):
    texts = Counter(
        normalise(text)
        for of_note in questions.values()
        for question in of_note
        for text in [question["question"], *question["phrasings"]]
    )
    assert [text for text, count in texts.items() if count > 1] == []


def test_question_ids_are_unique(questions):
    ids = [question["id"] for of_note in questions.values() for question in of_note]
    assert len(ids) == len(set(ids))


def test_splits_cover_every_note_once(splits, notes):
    assert set(splits) == set(notes)
    assert set(splits.values()) == SPLITS


@pytest.fixture(scope="module")
def cases() -> list[dict]:
    return read_yaml("prompt_cases.yaml")


class TestPromptCases:
    def test_counts_by_kind(self, cases):
        counts = Counter(case["kind"] for case in cases)
        assert counts["answerable"] >= 120 and counts["unanswerable"] >= 50 and counts["false_premise"] >= 30
        assert set(counts) == {"answerable", "unanswerable", "false_premise"}

    def test_fields(self, cases, syllabus):
        fields = {"case_id", "question", "kind", "accepted", "context_note", "hallucination", "part"}
        parts = {topic["part"] for topic in syllabus.values()} | {"python"}
        for case in cases:
            assert set(case) == fields, case["case_id"]
            assert case["part"] in parts and case["hallucination"] and case["question"].endswith("?"), case["case_id"]
            assert all(isinstance(answer, str) and answer for answer in case["accepted"]), case["case_id"]
            assert bool(case["accepted"]) == (case["kind"] != "unanswerable"), case["case_id"]

    def test_context_note_resolves_and_holds_an_accepted_answer(self, cases, notes):
        for case in cases:
            if case["kind"] == "unanswerable":
                assert case["context_note"] == "", case["case_id"]
            if case["kind"] == "answerable" or case["context_note"]:
                front, body = notes[case["context_note"]]
                assert case["part"] == front["part"], case["case_id"]
            if case["kind"] == "answerable":
                patterns = [rf"(?<!\w){re.escape(answer.casefold())}(?!\w)" for answer in case["accepted"]]
                assert any(re.search(pattern, body.casefold()) for pattern in patterns), case["case_id"]

    def test_every_note_is_asked_about(self, cases, notes):
        assert {case["context_note"] for case in cases if case["kind"] == "answerable"} == set(notes)

    def test_ids_and_questions_are_unique_and_not_the_notes_own(self, cases, questions):
        assert len({case["case_id"] for case in cases}) == len(cases)
        asked = [normalise(case["question"]) for case in cases]
        assert len(set(asked)) == len(asked)
        of_notes = {
            normalise(text) for of_note in questions.values() for q in of_note for text in [q["question"], *q["phrasings"]]
        }
        assert of_notes.isdisjoint(asked)


@pytest.fixture(scope="module")
def claims() -> list[dict]:
    return [{**claim, "note_id": note_id} for note_id in NOTE_IDS for claim in read_yaml(f"{note_id}.claims.yaml")]


class TestClaims:
    def test_counts(self, claims):
        supported = sum(claim["supported"] for claim in claims)
        assert len(claims) >= 400 and 0.45 <= supported / len(claims) <= 0.55
        kinds = Counter(claim["kind"] for claim in claims if not claim["supported"])
        assert set(kinds) == CLAIM_KINDS and min(kinds.values()) >= 40

    def test_fields(self, claims):
        fields = {"claim_id", "note_id", "passage", "claim", "supported", "why", "kind", "readings"}
        for claim in claims:
            assert set(claim) == fields and len(claim["readings"]) == 2 and claim["claim_id"].startswith(f"{claim['note_id']}-claim-"), claim["claim_id"]
            assert isinstance(claim["supported"], bool) and claim["why"], claim["claim_id"]
            assert claim["supported"] == (claim["kind"] == "verbatim-paraphrase"), claim["claim_id"]

    def test_passages_are_quoted_from_one_paragraph(self, claims, notes):
        for claim in claims:
            assert claim["passage"] in notes[claim["note_id"]][1], claim["claim_id"]
            assert "\n" not in claim["passage"], claim["claim_id"]
            sentences = re.split(r"(?<=[.?!])\s+(?=[A-Z0-9\"])", claim["passage"])
            assert 2 <= len(sentences) <= 5, claim["claim_id"]

    def test_no_claim_is_a_copy_or_appears_twice(self, claims):
        for claim in claims:
            assert normalise(claim["claim"]) not in normalise(claim["passage"]), claim["claim_id"]
        assert len({normalise(claim["claim"]) for claim in claims}) == len(claims)
        assert len({claim["claim_id"] for claim in claims}) == len(claims)

    def test_each_note_has_both_labels(self, claims, notes):
        labels = Counter((claim["note_id"], claim["supported"]) for claim in claims)
        assert min(labels[note_id, label] for note_id in notes for label in (True, False)) >= 2


@pytest.fixture(scope="module")
def two_hop() -> list[dict]:
    return read_yaml("two_hop.yaml")


class TestTwoHop:
    def test_counts(self, two_hop, splits):
        assert len(two_hop) >= 100 and {q["kind"] for q in two_hop} == {"bridge", "comparison"}
        assert len({q["id"] for q in two_hop}) == len(two_hop)
        of_side = Counter(splits[q["supports"][0]["note_id"]] for q in two_hop)
        assert min(of_side[side] for side in SPLITS) >= 15

    def test_both_places_stand_once_and_the_answer_is_in_one(self, two_hop, notes):
        for question in two_hop:
            assert question["why"] and len(question["phrasings"]) >= 1, question["id"]
            for support in question["supports"]:
                assert notes[support["note_id"]][1].count(support["span"]) == 1, question["id"]
            for answer in question["answers"]:
                assert sum(answer in support["span"] for support in question["supports"]) >= 1, question["id"]

    def test_no_question_copies_a_sentence(self, two_hop, notes):
        for question in two_hop:
            for support in question["supports"]:
                words = normalise(notes[support["note_id"]][1])
                for text in [question["question"], *question["phrasings"]]:
                    tokens = normalise(text).split()
                    assert not [t for i in range(len(tokens) - 6) if (t := " ".join(tokens[i : i + 7])) in words], question["id"]

    def test_they_are_not_the_notes_own(self, two_hop, questions):
        of_notes = {normalise(t) for of_note in questions.values() for q in of_note for t in [q["question"], *q["phrasings"]]}
        asked = [normalise(text) for q in two_hop for text in [q["question"], *q["phrasings"]]]
        assert of_notes.isdisjoint(asked) and len(set(asked)) == len(asked)


def test_the_dataset_card_has_the_right_counts(notes, questions, splits, cases, claims, two_hop):
    card = (NOTES / "README.md").read_text(encoding="utf-8")
    of_question = Counter(question["kind"] for of_note in questions.values() for question in of_note)
    of_split, of_case = Counter(splits.values()), Counter(case["kind"] for case in cases)
    of_claim = Counter(claim["kind"] for claim in claims)
    sides = Counter("test" if splits[claim["note_id"]] == "test" else "dev" for claim in claims)
    hops, agreed = Counter(q["kind"] for q in two_hop), sum(len(set(claim["readings"])) == 1 for claim in claims)
    for text in (
        f"{len(two_hop)}: {hops['bridge']} bridges, {hops['comparison']} comparisons",
        f"agree on {agreed} of {len(claims)} claims",
        f"{sum(of_question.values())}: {of_question['answerable']} answerable, {of_question['unanswerable']} unanswerable, "
        f"{of_question['false_premise']} false premise, {of_question['russian']} Russian",
        f"{of_split['train']} train, {of_split['dev']} dev, {of_split['test']} test",
        f"{len(cases)}: {of_case['answerable']} answerable, {of_case['unanswerable']} unanswerable, "
        f"{of_case['false_premise']} false premise",
        f"{len(claims)}: {of_claim['verbatim-paraphrase']} supported, {len(claims) - of_claim['verbatim-paraphrase']} not; "
        f"{sides['dev']} dev, {sides['test']} test",
        f"{of_claim['swapped-number']} with a swapped number, {of_claim['negation']} negations, "
        f"{of_claim['over-generalisation']} over-generalisations, {of_claim['neighbouring-fact']} neighbouring facts",
    ):
        assert text in card, text
