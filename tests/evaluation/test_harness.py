from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curriculum.adaptation.model import save_adapter
from curriculum.adaptation.settings import AdapterSettings
from curriculum.artifacts import ModelArtifact
from curriculum.corpora.documents import document, documents_table
from curriculum.errors import DataError
from curriculum.evaluation.harness import bits_per_byte, evaluate_models, ratio_interval, run_tasks
from curriculum.evaluation.harness_models import MiniTransformerLM, SharedPrefixLM
from curriculum.evaluation.harness_tasks import (
    CHOICE,
    PERPLEXITY,
    build_multiple_choice,
    held_out_digests,
    held_out_texts,
    name_overlap,
    write_tasks,
)
from curriculum.evaluation.settings import HarnessSettings
from curriculum.results import Identity
from curriculum.tokenization.packing import SHARES, build_tokenized_corpus
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer, save_model

torch.set_num_threads(1)
NAMES = "median variance copy parse encode decode split join merge filter sort shuffle".split()


def pydocs(n: int = 72) -> pd.DataFrame:
    rows = []
    for i in range(n):
        name, module = f"{NAMES[i % len(NAMES)]}_{i}", f"module{i // 12}"
        summary = f"Return the {NAMES[i % len(NAMES)]} of item number {i * 37} as text."
        body = " ".join(f"word{(i * 31 + j * j) % 997}" for j in range(40))
        rows.append(document(f"{module}.{name}", name, f"{summary}\n\nDetails: {body}.", source="stdlib", module=module,
                             qualified_name=f"{module}.{name}", kind="function", summary=summary))
    return documents_table(rows, "the fixture")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenized")
    return build_tokenized_corpus(pydocs(), TokenizationSettings(vocab_size=400, block_size=32, held_out_tokens=4000), out)


@pytest.fixture(scope="module")
def mini(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    torch.manual_seed(0)
    vocabulary = Tokenizer.from_file(str(corpus.path / "tokenizer.json")).get_vocab_size()
    save_model(Transformer(ModelConfig(vocabulary, layers=1, width=32, heads=2, kv_heads=1, hidden=64)), folder)
    (folder / "tokenizer.json").write_bytes((corpus.path / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def llama(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(corpus.path / "tokenizer.json"), eos_token=end, pad_token=end)
    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2)
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def requests(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]


def test_held_out_documents_are_exactly_those_no_training_block_has(corpus):
    table = pydocs()
    found = held_out_digests(corpus.path)
    known = table[table["digest"].isin(found)]
    assert len(found) == len(known) > 0  # every one read back is a document, byte for byte
    assert len(known) < 0.5 * len(table) and set(SHARES) == {"train", "validation", "test"}
    train = Tokenizer.from_file(str(corpus.path / "tokenizer.json")).decode(_training_stream(corpus.path), skip_special_tokens=False)
    assert not any(text in train for text in known["text"])
    assert sum(text in train for text in table["text"]) >= 0.8 * (len(table) - len(known))


def _training_stream(path: Path) -> list[int]:
    from curriculum.tokenization.packing import TokenBlocks

    return TokenBlocks(path, "train").blocks[:, 1:].flatten().tolist()


def test_texts_come_from_the_test_split_and_unseen_documents_only():
    table = pydocs(24)
    domain = table.assign(split=["train"] * 8 + ["test"] * 16)
    held_out = set(table["digest"].iloc[4:14])
    assert held_out_texts(domain, table, held_out, n=50, characters=5000) == list(table["text"].iloc[8:14])
    own = domain.assign(doc_id=[f"own-{i}" for i in range(24)])  # a user's documents were never in the other corpus
    assert len(held_out_texts(own, table, set(), n=50, characters=5000)) == 16
    with pytest.raises(DataError, match="held out from both"):
        held_out_texts(domain, table, set(), n=50, characters=5000)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 100))
def test_questions_are_sound(seed, n):
    table = pydocs()
    summaries = dict(zip(table["doc_id"], table["summary"], strict=True))
    modules = dict(zip(table["summary"], table["module"], strict=True))
    questions = build_multiple_choice(table, n, seed)
    assert len(questions) == min(n, len(table)) == len({q["question_id"] for q in questions})
    for q in questions:
        assert len(set(q["choices"])) == 4 and q["choices"][q["answer"]] == summaries[q["question_id"]]
        assert len({modules[c] for c in q["choices"]}) == 1
        assert summaries[q["question_id"]] not in q["question"]
    assert questions == build_multiple_choice(table, n, seed)


def test_answers_are_spread_over_the_places_and_only_allowed_documents_are_asked():
    table = pydocs()
    questions = build_multiple_choice(table, 72, 0)
    assert {q["answer"] for q in questions} == {0, 1, 2, 3}
    asked = list(table["doc_id"].iloc[:5])
    assert {q["question_id"] for q in build_multiple_choice(table, 72, 0, asked=asked)} == set(asked)
    with pytest.raises(DataError, match="held out"):
        build_multiple_choice(table, 5, 0, asked=[])
    with pytest.raises(DataError, match="3 functions have a summary"):
        build_multiple_choice(table.iloc[:3], 5, 0)


def test_name_overlap_finds_what_the_name_gives_away():
    question = {"question_id": "module.median_low", "choices": ["Return a copy.", "Return the low median.", "Sort it.", "Join it."]}
    assert name_overlap([{**question, "answer": 1}]) == 1.0
    assert name_overlap([{**question, "answer": 0}]) == 0.0


def test_mini_scores_equal_its_own_logits(mini):
    model = MiniTransformerLM(mini, context=24, batch_size=3)
    pairs = [("Return the", " median of item"), ("Return the median of", " item"), ("Sort", " the list of words as text")]
    for (score, greedy), (context, continuation) in zip(model.loglikelihood(requests(pairs), disable_tqdm=True), pairs, strict=True):
        ids = model.tok_encode(context + continuation)
        logs = model.model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
        begin = len(model.tok_encode(context))
        expected = sum(float(logs[i - 1, ids[i]]) for i in range(begin, len(ids)))
        assert score == pytest.approx(expected, abs=1e-4)
        assert greedy == all(int(logs[i - 1].argmax()) == ids[i] for i in range(begin, len(ids)))


def test_mini_predicts_every_token_of_a_long_text_once(mini):
    model = MiniTransformerLM(mini, context=24, batch_size=3)
    text = pydocs()["text"].iloc[0]
    ids = [model.eot_token_id, *model.tok_encode(text)]
    assert len(ids) > 60
    expected = 0.0
    for start in range(1, len(ids), 24):  # windows of 24 predictions; the last one is given a full window of context
        stop = min(start + 24, len(ids))
        row = ids[max(0, stop - 25) : stop]
        logs = model.model(torch.tensor([row[:-1]]))[0].log_softmax(-1)
        expected += sum(float(logs[len(row) - 2 - back, row[len(row) - 1 - back]]) for back in range(stop - start))
    found = model.loglikelihood_rolling([Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)])
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_mini_generates_until_a_stop(mini):
    model = MiniTransformerLM(mini, context=24, batch_size=3)
    whole = Instance(request_type="generate_until", doc={}, arguments=("Return", {"until": [], "max_gen_toks": 8}), idx=0)
    text = model.generate_until([whole])[0]
    assert len(text) > 2
    stop = text[2]
    cut = Instance(request_type="generate_until", doc={}, arguments=("Return", {"until": [stop], "max_gen_toks": 8}), idx=0)
    assert model.generate_until([cut])[0] == text.split(stop)[0]


def test_a_shared_prefix_changes_cost_and_not_scores(llama):
    from curriculum.adaptation.model import load_tokenizer

    tokenizer, network = load_tokenizer(llama), LlamaForCausalLM.from_pretrained(llama)
    common = {"tokenizer": tokenizer, "max_length": 64, "batch_size": 2}
    pairs = [(q["question"], " " + c) for q in build_multiple_choice(pydocs(), 3, 0) for c in q["choices"]]
    pairs += [("Return the", " text"), ("Return the", " median of item")]
    theirs = HFLM(network, **common).loglikelihood(requests(pairs), disable_tqdm=True)
    fed: list[int] = []
    hook = network.model.embed_tokens.register_forward_hook(lambda module, inputs, output: fed.append(inputs[0].numel()))
    ours = SharedPrefixLM(network, **common).loglikelihood(requests(pairs), disable_tqdm=True)
    hook.remove()
    assert [s for s, _ in ours] == pytest.approx([s for s, _ in theirs], abs=1e-3)
    assert [g for _, g in ours] == [g for _, g in theirs]
    assert sum(fed) < 0.75 * sum(len(tokenizer.encode(a + b)) for a, b in pairs)


def test_tasks_run_from_local_files(mini, tmp_path):
    texts, questions = ["Return the median of item.", "Sort the list of words as text."], build_multiple_choice(pydocs(), 4, 0)
    names = write_tasks(tmp_path, texts, questions)
    model = MiniTransformerLM(mini, context=24, batch_size=3)
    scores = run_tasks(model, tmp_path, names)
    perplexity, choice = (scores[scores["task"] == name] for name in (PERPLEXITY, CHOICE))
    assert list(perplexity["bytes"]) == [len(text.encode()) for text in texts]
    expected = model.loglikelihood_rolling([Instance(request_type="loglikelihood_rolling", doc={}, arguments=(t,), idx=0) for t in texts])
    assert list(perplexity["log_likelihood"]) == pytest.approx(expected, rel=1e-5)
    assert set(choice["example_id"]) == {q["question_id"] for q in questions}
    for q in questions:
        scored = model.loglikelihood(requests([(q["question"], " " + c) for c in q["choices"]]), disable_tqdm=True)
        best = max(range(4), key=lambda i: scored[i][0])
        assert choice.loc[choice["example_id"] == q["question_id"], "correct"].item() == float(best == q["answer"])


def test_report_of_three_models(corpus, mini, llama, tmp_path):
    table = pydocs()
    held_out = held_out_digests(corpus.path)
    domain = table.assign(split=["test" if digest in held_out else "train" for digest in table["digest"]])
    domain.loc[domain.index[domain["split"] == "train"][:3], "split"] = "test"  # seen by the mini-Transformer: must not be used
    base = Identity(role="base model", source="path:llama", digest="abc")
    adapted = get_peft_model(LlamaForCausalLM.from_pretrained(llama), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3)
    save_adapter(adapted, tmp_path, base)
    result = evaluate_models(
        ModelArtifact(mini), corpus, ModelArtifact(tmp_path), domain, table,
        HarnessSettings(documents=50, questions=50, context=64, mini_context=24, batch_size=2), AdapterSettings(quantisation="none"),
        folder=llama, base=base, device="cpu", precision="float32", seed=0, progress=lambda line: None,
    )
    assert result.metric("bits_per_byte__mini").n == len(held_out)
    assert result.value("bits_per_byte__base") != result.value("bits_per_byte__adapter")
    for name in ("mini", "base", "adapter"):
        found = result.metric(f"bits_per_byte__{name}")
        assert found.low <= found.value <= found.high
        assert result.metric(f"accuracy__{name}").low <= result.value(f"accuracy__{name}") <= result.metric(f"accuracy__{name}").high
    assert result.value("accuracy__random") == 0.25
    assert {"bits_per_byte__base", "bits_per_byte__adapter", "correct__mini"} <= set(result.per_example.columns)
    assert result.per_example["example_id"].is_unique
    result.save(tmp_path / "saved")


def test_bits_per_byte_is_of_all_documents_together():
    scores = pd.DataFrame({"log_likelihood": [-10 * math.log(2), -30 * math.log(2)], "bytes": [10, 10]})
    assert bits_per_byte(scores) == pytest.approx(2.0)
    low, high = ratio_interval(np.array([10.0, 30.0]), np.array([10.0, 10.0]), seed=0)
    assert (low, high) == (1.0, 3.0)
