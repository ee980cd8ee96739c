"""A profile: one validated object that says which models, data, budgets and bars every asset uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.sweep_settings import SweepSettings
from curriculum.alignment.settings import AlignmentSettings
from curriculum.compression.settings import CompressionSettings
from curriculum.corpora.settings import CorporaSettings
from curriculum.domain_adaptation.settings import DomainAdaptationSettings
from curriculum.embedding.settings import EmbedderSettings
from curriculum.errors import UserError
from curriculum.evaluation.settings import HarnessSettings
from curriculum.expansion.settings import ExpansionSettings
from curriculum.generation.settings import GeneratorSettings
from curriculum.grounding.settings import VerifierSettings
from curriculum.grounding.transfer_settings import TransferSettings
from curriculum.hardware import ComputeSettings
from curriculum.ingest.settings import CorpusSettings
from curriculum.late_interaction.settings import LateInteractionSettings
from curriculum.long_context.settings import LongContextSettings
from curriculum.multi_hop.settings import MultiHopSettings
from curriculum.parallel.settings import ParallelSettings
from curriculum.prompting.settings import PromptingSettings
from curriculum.published.settings import PublishedSettings
from curriculum.quantisation.settings import QuantisationSettings
from curriculum.rag.settings import AbstentionSettings, RagSettings
from curriculum.reading.settings import ReaderSettings
from curriculum.reranking.settings import RerankerSettings
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.rows.settings import RowSettings
from curriculum.search_tuning.settings import SearchTuningSettings
from curriculum.serving.settings import ServingSettings
from curriculum.static_embeddings.settings import StaticEmbeddingsSettings
from curriculum.syllabus import Bar
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.transformer.settings import AblationSettings, BridgeSettings, FamilyStudySettings, TransformerSettings
from curriculum.tuning.settings import TuningSettings
from curriculum.vector_search.settings import VectorSearchSettings

PROFILES = Path(__file__).resolve().parent.parent / "profiles"


class MilestoneSource(BaseModel):
    """Whether this profile runs a milestone on its reference task, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["reference", "stand-in"]
    measured_on: str


class Profile(BaseModel):
    """Everything an asset may be told. A section that a profile leaves out keeps its defaults: the starter's budgets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    seed: int = 0
    compute: ComputeSettings = ComputeSettings()
    milestones: dict[str, MilestoneSource] = Field(default_factory=dict)
    floors: list[Bar] = Field(default_factory=list)
    corpora: CorporaSettings = CorporaSettings()
    corpus: CorpusSettings = CorpusSettings()
    tokenization: TokenizationSettings = TokenizationSettings()
    transformer: TransformerSettings = TransformerSettings()
    ablations: AblationSettings = AblationSettings()
    families: FamilyStudySettings = FamilyStudySettings()
    bridges: BridgeSettings = BridgeSettings()
    published: PublishedSettings = PublishedSettings()
    static_embeddings: StaticEmbeddingsSettings = StaticEmbeddingsSettings()
    reader: ReaderSettings = ReaderSettings()
    adapter: AdapterSettings = AdapterSettings()
    adapter_sweep: SweepSettings = SweepSettings()
    domain_adaptation: DomainAdaptationSettings = DomainAdaptationSettings()
    harness: HarnessSettings = HarnessSettings()
    generator: GeneratorSettings = GeneratorSettings()
    prompting: PromptingSettings = PromptingSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    reranker: RerankerSettings = RerankerSettings()
    verifier: VerifierSettings = VerifierSettings()
    verifier_transfer: TransferSettings = TransferSettings()
    rag: RagSettings = RagSettings()
    abstention: AbstentionSettings = AbstentionSettings()
    serving: ServingSettings = ServingSettings()
    rows: RowSettings = RowSettings()
    tuning: TuningSettings = TuningSettings()
    quantisation: QuantisationSettings = QuantisationSettings()
    long_context: LongContextSettings = LongContextSettings()
    parallel: ParallelSettings = ParallelSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    vector_search: VectorSearchSettings = VectorSearchSettings()
    late_interaction: LateInteractionSettings = LateInteractionSettings()
    search_tuning: SearchTuningSettings = SearchTuningSettings()
    expansion: ExpansionSettings = ExpansionSettings()
    compression: CompressionSettings = CompressionSettings()
    multi_hop: MultiHopSettings = MultiHopSettings()


def load_profile(name: str, overrides: dict[str, Any] | None = None) -> Profile:
    """Read ``profiles/NAME.yaml`` (or a path to a YAML file) and validate it, ``overrides`` merged in section by section.

    Raises:
        UserError: no such profile, YAML that does not parse, or a setting that is unknown or out of range (it is named).
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise UserError(f"unknown profile '{name}': set CURRICULUM_PROFILE to one of {known}, or to the path of a YAML file")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"profile {path} is not valid YAML: {error}") from error
    data = _merge({"name": path.stem, **data}, overrides or {})
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"profile {path} does not validate: {wrong}") from error


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
