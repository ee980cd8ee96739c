"""Generators: a tiny local model, and a real HTTP endpoint on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from curriculum.errors import SourceError
from curriculum.generation.base import cut_at
from curriculum.generation.factory import build_generator
from curriculum.generation.settings import GeneratorSettings
from tests.http_server import answering, completion

torch.set_num_threads(1)
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
WORDS = "user assistant system what is red blue green the answer stop a b c d".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a word tokenizer and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("llama")
    vocab = {t: i for i, t in enumerate(["<pad>", "<end>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(path)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocab), **shape, eos_token_id=1, pad_token_id=0)).save_pretrained(path)
    return path


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_batches_give_what_single_prompts_give_in_order(folder: Path) -> None:
    generator = build_generator(GeneratorSettings(batch_size=3), lambda _: folder, "cpu")
    prompts = [ask("what is red"), ask("the answer is blue a b c d a b c d"), ask("green"), ask("what is the answer")]
    together = generator.generate(prompts, max_new_tokens=6)
    alone = [generator.generate([p], max_new_tokens=6)[0] for p in prompts]
    assert [g.text for g in together] == [g.text for g in alone]
    assert [g.prompt_tokens for g in together] == [5, 14, 3, 6]
    assert all(0 <= g.completion_tokens <= 6 and g.seconds > 0 for g in together)


def test_sampling_repeats_with_its_seed(folder: Path) -> None:
    generator = build_generator(GeneratorSettings(), lambda _: folder, "cpu")
    texts = [generator.generate([ask("what is red")], max_new_tokens=8, temperature=2.0, seed=s)[0].text for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_text_ends_before_its_stop_string() -> None:
    assert cut_at("one\nObservation: two", ("Observation:", "User:")) == ("one\n", True)
    assert cut_at("one", ("x",)) == ("one", False)


seen: list[dict[str, Any]] = []


def reply(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """Enough of the chat-completions protocol to be asked for real."""
    seen.append(body | {"path": path, "key": headers["Authorization"]})
    if body["model"] == "forbidden":
        return 401, {"error": {"message": "no such key"}}
    return 200, completion(body["model"], f"echo {body['messages'][-1]['content']}", 7, 2)


@pytest.fixture
def url() -> Iterator[str]:
    with answering(reply) as address:
        yield f"{address}/v1"


def endpoint(url: str, model: str = "tiny") -> Any:
    settings = GeneratorSettings(kind="endpoint", model=model, base_url=url, api_key_variable="TEST_KEY", retries=0, timeout_seconds=5)
    return build_generator(settings, lambda _: Path("unused"), "cpu")


def test_an_endpoint_is_asked_in_its_protocol(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "secret")
    made = endpoint(url).generate([ask("red"), ask("blue")], max_new_tokens=5, stop=("x",), seed=3)
    assert [(g.text, g.prompt_tokens, g.completion_tokens, g.finish_reason) for g in made] == [
        ("echo red", 7, 2, "stop"), ("echo blue", 7, 2, "stop")
    ]  # fmt: skip
    request = seen[-1]
    assert request["path"] == "/v1/chat/completions" and request["key"] == "Bearer secret"
    assert (request["max_tokens"], request["stop"], request["seed"], request["temperature"]) == (5, ["x"], 3, 0.0)


def test_an_endpoint_that_refuses_or_is_not_there_is_one_clear_error(url: str) -> None:
    with pytest.raises(SourceError, match=r"AuthenticationError.*check generator\.base_url, generator\.model and the key in \$TEST_KEY"):
        endpoint(url, "forbidden").generate([ask("red")], max_new_tokens=5)
    with pytest.raises(SourceError, match="gave no answer"):
        endpoint("http://127.0.0.1:9/v1").generate([ask("red")], max_new_tokens=5)
    with pytest.raises(SourceError, match=r"generator\.base_url is empty"):
        endpoint("")
