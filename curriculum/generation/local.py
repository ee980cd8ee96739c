"""A local causal language model: batched decoding with left padding, longest prompts together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from curriculum.generation.base import Generation, Messages, cut_at


class LocalGenerator:
    """transformers' ``generate`` over a model folder with a chat template."""

    def __init__(self, folder: Path, *, name: str = "", batch_size: int = 8, device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name, self.device, self.batch_size = name or folder.name, device, batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).to(device).eval()

    def generate(
        self, prompts: list[Messages], *, max_new_tokens: int, stop: tuple[str, ...] = (), temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        """Greedy at temperature 0, else sampled from ``seed``. Prompts of like length share a batch, so little is padding."""
        texts = [self.tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        torch.manual_seed(seed)
        made: dict[int, Generation] = {}
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            results = self._batch([texts[i] for i in chosen], max_new_tokens, stop, temperature)
            made.update(zip(chosen, results, strict=True))
        return [made[i] for i in range(len(prompts))]

    def stream(self, prompt: Messages, *, max_new_tokens: int) -> Iterator[str]:
        """The greedy text of one prompt, word by word. Closing the iterator stops the model at its next token."""
        from transformers import TextIteratorStreamer

        text = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer([text], return_tensors="pt", add_special_tokens=False).to(self.device)
        pieces = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        closed, failed = threading.Event(), []

        def write() -> None:
            try:
                with torch.no_grad():  # of this thread
                    self.model.generate(
                        **inputs, max_new_tokens=max_new_tokens, pad_token_id=self.tokenizer.pad_token_id, do_sample=False,
                        streamer=pieces, stopping_criteria=[_until(closed)],
                    )  # fmt: skip
            except Exception as error:
                failed.append(error)
                pieces.end()  # or the reader would wait for ever

        writer = threading.Thread(target=write, name="generation", daemon=True)
        writer.start()
        try:
            yield from pieces
        finally:
            closed.set()
            writer.join()
        if failed:
            raise failed[0]

    @torch.no_grad()
    def _batch(self, texts: list[str], max_new_tokens: int, stop: tuple[str, ...], temperature: float) -> list[Generation]:
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        stopping = {"stop_strings": list(stop), "tokenizer": self.tokenizer} if stop else {}
        begun = time.perf_counter()
        out = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, pad_token_id=self.tokenizer.pad_token_id, **sampling, **stopping
        )
        seconds = (time.perf_counter() - begun) / len(texts)
        width = inputs["input_ids"].shape[1]
        return [
            self._generation(row[width:].tolist(), int(mask.sum()), seconds, max_new_tokens, stop)
            for row, mask in zip(out, inputs["attention_mask"], strict=True)
        ]

    def _generation(self, ids: list[int], prompt: int, seconds: float, limit: int, stop: tuple[str, ...]) -> Generation:
        ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text, stopped = cut_at(self.tokenizer.decode(ids[:length], skip_special_tokens=True), stop)
        reason = "stop" if stopped or length < len(ids) or length < limit else "length"
        return Generation(text.strip(), prompt, length, seconds, reason)


def _until(closed: threading.Event) -> Any:
    """A stopping criterion of transformers' ``generate``: every text [batch] ends once ``closed`` is set."""
    return lambda ids, scores, **_: torch.full((ids.shape[0],), closed.is_set(), dtype=torch.bool, device=ids.device)
