"""The code location: it loads, lightly, and imports point one way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "peft", "pandas", "numpy", "faiss", "pyserini", "mteb", "sentence_transformers", "ragas",
         "lm_eval", "mlflow", "datasets", "umap", "matplotlib", "sklearn", "scipy", "bitsandbytes", "openai"}
ALLOWED = {
    "curriculum": {"curriculum"},
    "resources": {"curriculum", "resources"},
    "assets": {"curriculum", "resources", "assets"},
    "pipelines": {"curriculum", "resources", "assets", "pipelines"},
}
ASSETS = {
    "pydocs_corpus", "notes_corpus", "tokenizers_study", "tokenized_corpus", "attention_study", "mini_transformer",
    "mini_transformer_report", "qa_dataset", "qa_reader", "qa_report", "domain_corpus", "qlora_adapter", "adapter_report",
    "prompt_cases", "prompt_study", "passages", "bm25_index", "passage_embeddings", "dense_index", "retrieval_tracks",
    "hybrid_search_report", "reranker", "reranker_report", "support_verifier", "verifier_calibration", "rag_answers",
    "rag_report", "lm_eval_report", "report_card", "two_hop_questions", "notes_study", "hallucination_report",
    "shape_arithmetic", "weight_bridges", "static_embeddings_study",
}


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    code = "import sys, pipelines.definitions; print(sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(ast.literal_eval(done.stdout.strip().splitlines()[-1]))
    assert not loaded & HEAVY


@pytest.mark.parametrize("profile", ["starter", "workstation", "cluster"])
def test_every_profile_has_every_asset_and_its_checks(profile: str) -> None:
    from pipelines.definitions import build_definitions

    graph = build_definitions(profile).resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert names >= ASSETS
    checks = {key.name for key in graph.asset_check_keys}
    assert "rows_and_unique_ids" in checks and any(name.startswith("claim_") for name in checks)
    if profile != "starter":
        assert "milestone_reader_qa_report_f1" in checks


def test_a_long_study_has_a_job_of_its_own_and_is_not_in_the_lineage() -> None:
    from assets.lineage import DEEP
    from pipelines.definitions import defs
    from pipelines.jobs import GROUPS, STUDIES

    nodes = {node.key.to_user_string(): node for node in defs.resolve_asset_graph().asset_nodes}
    deep = {name for name, node in nodes.items() if DEEP.items() <= node.tags.items()}
    assert set(STUDIES.values()) <= deep and {nodes[name].group_name for name in deep} <= set(GROUPS)
    selected = {name: {key.to_user_string() for key in defs.resolve_job_def(name).asset_layer.selected_asset_keys} for name in ("lineage", *STUDIES)}
    assert not selected["lineage"] & deep and "prompt_study" in selected["lineage"]
    assert selected["all_cases"] >= {"hallucination_report", "prompt_cases", "bm25_index", "passages", "notes_corpus"}


def test_bars_name_assets_that_exist() -> None:
    from curriculum.evaluation.gate import active_bars
    from curriculum.profile import load_profile
    from curriculum.syllabus import load_syllabus
    from pipelines.definitions import build_definitions

    graph = build_definitions("starter").resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {bar.asset for bar in active_bars(load_syllabus(), load_profile("starter")).values()} <= names


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package: str) -> None:
    wrong = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops = {name.split(".")[0] for name in names}
            if tops & (ALLOWED.keys() - ALLOWED[package]) or (package == "curriculum" and "dagster" in tops):
                wrong.append(f"{path.relative_to(ROOT)}: {sorted(tops)}")
    assert not wrong


def test_the_orchestrators_own_validator_accepts_the_code_location(tmp_path: Path) -> None:
    environment = {**os.environ, "CURRICULUM_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dagster")), "definitions", "validate"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
