"""The ways of reaching past the training length without training again, and a trained model under each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from curriculum.transformer.config import RopeScaling
from curriculum.transformer.model import Transformer
from curriculum.transformer.positions import rope_frequencies


@dataclass(frozen=True)
class Method:
    """How the frequencies are changed, and the factor in units of how many training lengths are read."""

    kind: Literal["", "linear", "ntk", "yarn"] = ""
    width: float = 1.0

    def scaling(self, times: float, length: int) -> RopeScaling | None:
        """For an input of ``times`` times the training ``length``."""
        return RopeScaling(self.kind, self.width * times, length) if self.kind else None


METHODS: Mapping[str, Method] = {
    "plain": Method(), "interpolation": Method("linear"), "ntk": Method("ntk"), "yarn": Method("yarn"),
    # some pairs of the NTK-aware base still leave the trained range, so it is often given a factor beyond the ratio of the lengths
    "ntk_wide": Method("ntk", 2.0),
}  # fmt: skip


def rescaled(model: Transformer, scaling: RopeScaling | None) -> Transformer:
    """The same weights under other rotary frequencies, in evaluation mode."""
    other = Transformer(replace(model.config, rope_scaling=scaling))
    other.load_state_dict(model.state_dict())
    return other.eval()


def frequency_error(head_dim: int, theta: float, length: int, factors: tuple[float, ...]) -> float:
    """Largest relative difference to the frequencies, and to YaRN's factor of the logits, that transformers computes."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    worst = 0.0
    for factor in factors:
        for kind, theirs, seen in (("linear", "linear", None), ("ntk", "dynamic", 2 * length), ("yarn", "yarn", None)):
            rope = {"rope_type": theirs, "rope_theta": theta, "original_max_position_embeddings": length, "factor": factor}
            config = LlamaConfig(hidden_size=head_dim, num_attention_heads=1, max_position_embeddings=length, rope_parameters=rope)
            reference, scale = ROPE_INIT_FUNCTIONS[theirs](config, torch.device("cpu"), seen)
            # the library's dynamic scaling grows with the input: at twice the length it is NTK's of this factor
            asked = 2 * factor - (factor - 1) if kind == "ntk" else factor
            ours, own_scale = rope_frequencies(head_dim, theta, RopeScaling(kind, asked, length))
            worst = max(worst, float((ours / reference - 1).abs().max()), abs(own_scale / scale - 1))
    return worst


@torch.no_grad()
def change_at_factor_one(model: Transformer, ids_BT: torch.Tensor) -> float:
    """Largest change of the logits that any method makes where nothing is stretched: 0."""
    plain = model.eval()(ids_BT)
    methods = [method for method in METHODS.values() if method.kind and method.width == 1.0]
    return max(float((rescaled(model, method.scaling(1.0, ids_BT.shape[1]))(ids_BT) - plain).abs().max()) for method in methods)
