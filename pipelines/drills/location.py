"""The code location of the drills: three small assets made as the project makes its own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import dagster as dg

from assets.lineage import Lab, lineage_asset
from resources.build import build_resources, home

if TYPE_CHECKING:
    from curriculum.artifacts import DirectoryArtifact, ModelArtifact


@lineage_asset(group="drills")
def tick(lab: Lab) -> DirectoryArtifact:
    """A file of a few bytes: the smallest thing that goes all the way through a run."""
    from curriculum.artifacts import DirectoryArtifact

    (lab.out / "tick.json").write_text(json.dumps({"seed": lab.seed}))
    return DirectoryArtifact(lab.out)


@lineage_asset(group="drills", settings="transformer")
def trained(lab: Lab) -> ModelArtifact:
    """The mini-Transformer on random tokens, with checkpoints: a training that can be killed anywhere."""
    import torch

    from curriculum.artifacts import ModelArtifact
    from curriculum.transformer.model import save_model
    from curriculum.transformer.training import model_config, train_config

    blocks = torch.randint(256, (64, 33), generator=torch.Generator().manual_seed(lab.seed))
    run = train_config(
        model_config(lab.settings, 256), blocks, lab.settings, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress
    )
    save_model(run.model, lab.out)
    (lab.out / "losses.json").write_text(json.dumps(run.losses))
    return ModelArtifact(lab.out)


@lineage_asset(group="drills", settings="transformer")
def trained_by_ranks(lab: Lab) -> ModelArtifact:
    """The same by two processes that average their gradients."""
    from curriculum.artifacts import ModelArtifact
    from pipelines.drills.ranks import run_ranks

    run_ranks(lab.settings, seed=lab.seed, out=lab.out, checkpoints=lab.checkpoints, progress=lab.progress)
    return ModelArtifact(lab.out)


ASSETS = [tick, trained, trained_by_ranks]
defs = dg.Definitions(
    assets=ASSETS,
    jobs=[dg.define_asset_job(f"{asset.key.path[-1]}_job", selection=[asset]) for asset in ASSETS],
    resources=build_resources(
        os.environ.get("CURRICULUM_PROFILE", "starter"), home(), fresh=os.environ.get("CURRICULUM_FRESH") == "1", journal=False
    ),
    executor=dg.in_process_executor,
)
