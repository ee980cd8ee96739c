"""The one Transformer: decoder-only, encoder-only or encoder-decoder, in whatever shape its configuration says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from curriculum.losses import chunked_cross_entropy
from curriculum.transformer.blocks import Block, LayerCache, LayerNorm, Reading, make_norm
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.positions import Rotary, ScoreBias, sinusoids


@dataclass
class Cache:
    """What decoding keeps: keys and values a layer, and how many positions were read. ``mask_BS`` is of all of them, or None."""

    layers: list[LayerCache] = field(default_factory=list)
    length: int = 0
    mask_BS: Tensor | None = None


class Stack(nn.Module):
    """Blocks one after another, with what they share: rotary table, score biases, the norm at the end of a pre-norm stack."""

    def __init__(self, config: ModelConfig, layers: int, *, causal: bool, across: bool) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.blocks = nn.ModuleList(Block(config, number, across=across) for number in range(layers))
        self.norm = make_norm(config) if config.norm_place == "pre" else nn.Identity()
        self.rotary = Rotary(config) if config.position == "rope" else None
        self.bias = ScoreBias(config, both_ways=not causal) if config.position in {"alibi", "t5"} else None

    def forward(
        self, x_BTC: Tensor, past: Cache | None = None, *, mask_BS: Tensor | None = None, memory: Tensor | None = None,
        memory_mask: Tensor | None = None, routes: list[Tensor] | None = None,
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """The stack's output [B, T, C], and the cache with these tokens added. ``mask_BS`` covers what ``past`` holds as well."""
        begin = past.length if past else 0
        end = begin + x_BTC.shape[1]
        reading = Reading(begin, end, self.causal, self.config.window, mask_BS, bias=self.bias)
        if self.rotary is not None:
            reading.rotary = self.rotary(begin, end, x_BTC.device)
        kept: list[LayerCache] = []
        for number, block in enumerate(self.blocks):
            before = past.layers[number] if past else None
            x_BTC, present = block(x_BTC, reading, before, memory=memory, memory_mask=memory_mask, routes=routes)
            kept.append(present)
        return self.norm(x_BTC), Cache(kept, end, mask_BS)


class Transformer(nn.Module):
    """Token ids [B, T] to logits [B, T, vocabulary]. An encoder-decoder also takes the ids of its source, ``source_BS``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        if config.position == "learned":
            self.positions = nn.Embedding(config.max_positions, config.width)
        if config.segments:
            self.segments = nn.Embedding(config.segments, config.width)
        if config.embedding_norm:
            self.embedding_norm = make_norm(config)
        both = config.stack == "encoder-decoder"
        if config.stack != "decoder":
            layers = config.encoder_layers if both else config.layers
            self.encoder = Stack(config, layers, causal=False, across=False)
        if config.stack != "encoder":
            self.decoder = Stack(config, config.layers, causal=True, across=both)
        if config.head_transform:
            self.transform = nn.Linear(config.width, config.width)
            self.transform_norm, self.output_bias = LayerNorm(config.width, config.norm_eps), nn.Parameter(torch.zeros(config.vocab_size))
        if not config.tied:
            self.output = nn.Linear(config.width, config.vocab_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        layers = self.config.layers + self.config.encoder_layers
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:  # residual branches start smaller, so that depth does not grow the variance (GPT-2)
                shrink = (2 * layers) ** -0.5 if name.endswith(("out.weight", "down.weight", "down")) else 1.0
                nn.init.normal_(weight, std=0.02 * shrink)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(
        self, ids_BT: Tensor, *, mask_BT: Tensor | None = None, source_BS: Tensor | None = None, source_mask_BS: Tensor | None = None,
        segments_BT: Tensor | None = None, routes: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits [B, T, vocabulary]. Masks are False at padding. ``routes`` collects the routers' logits, [tokens, experts] a layer."""
        return self.logits(
            self.hidden(ids_BT, mask_BT=mask_BT, source_BS=source_BS, source_mask_BS=source_mask_BS, segments_BT=segments_BT, routes=routes)
        )

    def hidden(
        self, ids_BT: Tensor, *, mask_BT: Tensor | None = None, source_BS: Tensor | None = None, source_mask_BS: Tensor | None = None,
        segments_BT: Tensor | None = None, routes: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """What the output layer reads, [B, T, C], of the same arguments."""
        if self.config.stack == "encoder":
            return self.encode(ids_BT, mask_BT, segments_BT, routes=routes)
        memory = None if source_BS is None else self.encode(source_BS, source_mask_BS, routes=routes)
        return self.decode(ids_BT, mask_BT=mask_BT, memory=memory, memory_mask=source_mask_BS, routes=routes)[0]

    def encode(
        self, ids_BS: Tensor, mask_BS: Tensor | None = None, segments_BS: Tensor | None = None, *, routes: list[Tensor] | None = None
    ) -> Tensor:
        """The encoder's output [B, S, C]."""
        return self.encoder(self._embed(ids_BS, 0, segments_BS), mask_BS=mask_BS, routes=routes)[0]

    def decode(
        self, ids_BT: Tensor, past: Cache | None = None, *, mask_BT: Tensor | None = None, memory: Tensor | None = None,
        memory_mask: Tensor | None = None, routes: list[Tensor] | None = None,
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """The decoder's output [B, T, C] after what ``past`` holds, and the cache with these tokens added."""
        known = past.mask_BS if past else None
        if mask_BT is not None and past is not None and past.length:
            known = known if known is not None else mask_BT.new_ones(len(mask_BT), past.length)
        elif mask_BT is None and known is not None:
            mask_BT = known.new_ones(ids_BT.shape)
        mask_BS = mask_BT if known is None or mask_BT is None else torch.cat((known, mask_BT), dim=1)
        x = self._embed(ids_BT, past.length if past else 0, None)
        return self.decoder(x, past, mask_BS=mask_BS, memory=memory, memory_mask=memory_mask, routes=routes)

    def step(
        self, ids_BT: Tensor, past: Cache | None = None, *, mask_BT: Tensor | None = None, memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """Logits of ``ids_BT`` after what ``past`` holds, and the cache with them added. ``memory`` is needed at the first step only."""
        x, cache = self.decode(ids_BT, past, mask_BT=mask_BT, memory=memory, memory_mask=memory_mask)
        return self.logits(x), cache

    def logits(self, x_BTC: Tensor) -> Tensor:
        """The output layer, with BERT's transform before it where there is one."""
        bias = None
        if self.config.head_transform:
            x_BTC, bias = self.transform_norm(F.gelu(self.transform(x_BTC))), self.output_bias
        if self.config.output_scale != 1.0:
            x_BTC = x_BTC * self.config.output_scale
        return F.linear(x_BTC, self.embedding.weight if self.config.tied else self.output.weight, bias)

    def loss(self, x_BTC: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy in nats of a stack's output at ``targets_BT`` (-100: not counted), without the logits of the whole batch."""
        if self.config.head_transform:
            return F.cross_entropy(self.logits(x_BTC).flatten(0, 1), targets_BT.flatten())
        weight = self.embedding.weight if self.config.tied else self.output.weight
        hidden = x_BTC if self.config.output_scale == 1.0 else x_BTC * self.config.output_scale
        return chunked_cross_entropy(hidden.flatten(0, 1), weight, targets_BT.flatten(), chunk=256)

    def _embed(self, ids_BT: Tensor, begin: int, segments_BT: Tensor | None) -> Tensor:
        x, config = self.embedding(ids_BT), self.config
        if config.embedding_scale != 1.0:
            x = x * config.embedding_scale
        if config.position in {"learned", "sinusoidal"}:
            end = begin + ids_BT.shape[1]
            if config.position == "learned" and end > config.max_positions:
                raise ValueError(f"{end} tokens do not fit the table of {config.max_positions} learned positions")
            places = torch.arange(begin, end, device=ids_BT.device)
            x = x + (self.positions(places) if config.position == "learned" else sinusoids(places, config.width))
        if config.segments:
            x = x + (self.segments.weight[0] if segments_BT is None else self.segments(segments_BT))
        if config.embedding_norm:
            x = self.embedding_norm(x)
        return F.dropout(x, config.dropout, self.training) if config.dropout else x

    @torch.inference_mode()  # a sixth less time a token than no_grad at this size: no version counters, no views to track
    def generate(self, ids: list[int], new_tokens: int, *, temperature: float = 0.0, seed: int = 0) -> list[int]:
        """``ids`` continued by ``new_tokens`` tokens: the likeliest one each time, or sampled at ``temperature`` > 0."""
        generator = torch.Generator().manual_seed(seed)
        logits, cache = self.step(torch.tensor([ids]))
        said: list[Tensor] = []
        for number in range(new_tokens):
            last = logits[0, -1]
            if temperature > 0:
                token = torch.multinomial((last / temperature).softmax(-1), 1, generator=generator)
            else:
                token = last.argmax(-1, keepdim=True)
            said.append(token)
            if number + 1 < new_tokens:
                logits, cache = self.step(token[None], cache)
        return [*ids, *(int(token) for token in said)]


def save_model(model: Transformer, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json``."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(model.config), indent=1))


def load_model(folder: Path) -> Transformer:
    """Read what :func:`save_model` wrote, in evaluation mode."""
    model = Transformer(ModelConfig(**json.loads((folder / "config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def leak_probe(model: Callable[[Tensor], Tensor], vocab_size: int, *, length: int = 48, seed: int = 0) -> float:
    """Largest change of the logits before a position when the tokens from it on change: 0 for a causal model."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (2, length), generator=generator)
    changed, cut = ids.clone(), length // 2
    changed[:, cut:] = torch.randint(vocab_size, (2, length - cut), generator=generator)
    with torch.no_grad():
        return float((model(ids)[:, :cut] - model(changed)[:, :cut]).abs().max())
