"""The command line: run the lineage, hold the gate, render the report card. The orchestrator is started as a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from curriculum.errors import UserError

PROJECT = Path(__file__).resolve().parent.parent
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
ProfileOption = Annotated[str, typer.Option(envvar="CURRICULUM_PROFILE", help="starter, workstation, cluster, or a YAML file")]


def home() -> Path:
    """Where this installation keeps its state: ``CURRICULUM_HOME``, or ``.curriculum`` beside the code."""
    return Path(os.environ.get("CURRICULUM_HOME") or PROJECT / ".curriculum").absolute()


_POSTGRES = "\nstorage:\n  postgres:\n    postgres_url: {env: CURRICULUM_POSTGRES_URL}\n"


def instance_config(dagster_home: Path) -> Path:
    """Write the instance's dagster.yaml where the orchestrator reads it: the project's, on Postgres where CURRICULUM_POSTGRES_URL is set.

    Raises:
        UserError: that variable names another driver.
    """
    from curriculum.disk import write_atomically

    text = (PROJECT / "dagster.yaml").read_text(encoding="utf-8")
    url = os.environ.get("CURRICULUM_POSTGRES_URL", "")
    if url and not url.startswith("postgresql+psycopg2://"):
        raise UserError("CURRICULUM_POSTGRES_URL must begin with postgresql+psycopg2:// (the driver that is installed)")
    text += _POSTGRES if url else ""
    path = dagster_home / "dagster.yaml"
    if path.is_symlink() or not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text.encode())
    return path


def _environment(profile: str, fresh: bool) -> dict[str, str]:
    """The orchestrator's environment."""
    dagster_home = home() / "dagster"
    instance_config(dagster_home)
    quiet = {  # the lineage's own progress lines stay; a library's bars and load reports would drown them
        "TOKENIZERS_PARALLELISM": "false", "RAGAS_DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "MLFLOW_LOGGING_LEVEL": "WARNING",
        "LMEVAL_LOG_LEVEL": "ERROR",
    }  # fmt: skip
    return {
        **quiet,
        **os.environ,
        "DAGSTER_HOME": str(dagster_home),
        "CURRICULUM_PROFILE": profile,
        "CURRICULUM_FRESH": "1" if fresh else "0",
        "PYTHONPATH": str(PROJECT),
    }


def _store(profile: Any) -> Any:
    from curriculum.storage import ArtifactStore

    local = home() / "artifacts" / profile.name
    return ArtifactStore(os.environ.get("CURRICULUM_ARTIFACTS") or str(local), local)


def _states(profile_name: str) -> Any:
    from curriculum.evaluation.baselines import Baselines
    from curriculum.evaluation.states import States
    from curriculum.profile import load_profile

    loaded = load_profile(profile_name)
    return States(home() / "runs" / loaded.name, _store(loaded), Baselines(loaded.name))


def _close(profile_name: str, run_succeeded: bool, whole: bool = True) -> int:
    """Print the closing table, render the card from what the store holds, and return the gate's exit code.

    Of a run that was not to make everything (``whole`` false), what was never made is not missing.
    """
    from curriculum.evaluation.gate import exit_code, milestone_rows, of_made
    from curriculum.profile import load_profile
    from curriculum.report.card import changes_since, judgements, write_card
    from curriculum.report.table import print_tables
    from curriculum.syllabus import load_syllabus

    syllabus, profile = load_syllabus(), load_profile(profile_name)
    store = _store(profile)
    held, changes = judgements(syllabus, profile, store), changes_since(syllabus, profile, store)
    card = write_card(syllabus, profile, store, home() / f"report_card_{profile.name}.html")
    rows = milestone_rows(syllabus, profile, store)
    if not whole:
        rows, held, changes = of_made(store, rows, held, changes)
    code = exit_code(list(held.values()), run_succeeded, changes)
    print_tables(rows, held, changes, card, code)
    return code


@app.command()
def run(
    profile: ProfileOption = "starter",
    job: Annotated[str, typer.Option(help="lineage (everything), a group (corpora, foundations, search, ...) or corpus (your own)")] = "lineage",
    fresh: Annotated[bool, typer.Option(help="compute everything again instead of reusing what nothing changed")] = False,
) -> None:
    """Materialise the lineage, then print the milestones and exit with the gate's code."""
    from curriculum.profile import load_profile

    load_profile(profile)  # a wrong profile is one sentence here, before the orchestrator starts
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "pipelines.definitions", "-j", job]
    finished = subprocess.run(command, cwd=PROJECT, env=_environment(profile, fresh), check=False)
    if finished.returncode == 0:
        _states(profile).keep()
    raise typer.Exit(_close(profile, finished.returncode == 0, whole=job == "lineage"))


@app.command()
def gate(profile: ProfileOption = "starter") -> None:
    """Hold every bar against the stored results: exit 0 all well, 1 a bar failed, 2 a result is missing."""
    raise typer.Exit(_close(profile, run_succeeded=True))


@app.command()
def accept(
    assets: Annotated[list[str] | None, typer.Argument(help="evaluation assets; all that have a score under regression if none is named")] = None,
    reason: Annotated[str, typer.Option(help="why the present scores are the ones to hold; kept with them and in the journal")] = "",
    profile: ProfileOption = "starter",
) -> None:
    """Make the latest scores the baseline that later ones are held against."""
    from curriculum.evaluation.baselines import Baselines
    from curriculum.journal import journal_acceptance, journal_uri
    from curriculum.profile import load_profile
    from curriculum.syllabus import load_syllabus

    loaded, regressions = load_profile(profile), load_syllabus().regressions
    kept = Baselines(loaded.name)
    for asset in assets or list(dict.fromkeys(r.asset for r in regressions)):
        record = kept.accept(regressions, _store(loaded), asset, reason)
        journal_acceptance(journal_uri(home()), str(home() / "journal"), loaded.name, record)
        typer.echo(f"accepted {asset} {record['version']}: {record['examples']} examples")
    typer.echo(f"baselines: {kept.folder}")


@app.command()
def rollback(
    asset: Annotated[str, typer.Argument(help="a promoted asset, such as promoted_reader")],
    version: Annotated[str, typer.Option(help="one of its versions; the one before the present one if none is named")] = "",
    profile: ProfileOption = "starter",
) -> None:
    """Point a promoted asset at an earlier promoted version. Nothing is deleted: the later one can be named likewise."""
    from curriculum.evaluation.rollback import roll_back
    from curriculum.profile import load_profile

    before, after = roll_back(_store(load_profile(profile)), asset, version)
    typer.echo(f"{asset}: {before} -> {after}; downstream uses it from its next run on")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="a kept run, 'latest' or 'baseline'")],
    second: Annotated[str, typer.Argument(help="likewise, but not 'baseline'")] = "latest",
    profile: ProfileOption = "starter",
) -> None:
    """Lay two runs side by side: every score under regression, and every headline metric of the results that differ."""
    from curriculum.profile import load_profile
    from curriculum.report.table import print_changes, print_metrics
    from curriculum.syllabus import load_syllabus

    states, syllabus = _states(profile), load_syllabus()
    print_changes(states.compare(first, second, syllabus.regressions, seed=load_profile(profile).seed), first, second)
    print_metrics(states.metrics(first, second), first, second)


@app.command()
def backfill(
    asset: Annotated[str, typer.Argument(help="an asset with partitions: fusion_row, retrieval_track_row, prompt_pattern_row, ...")],
    partitions: Annotated[str, typer.Option(help="the partitions to make, as a,b")] = "",
    every: Annotated[bool, typer.Option("--all", help="all of them")] = False,
    missing: Annotated[bool, typer.Option(help="those that were never made")] = False,
    resume: Annotated[bool, typer.Option(help="those that the last backfill did not finish")] = False,
    profile: ProfileOption = "starter",
) -> None:
    """Make the rows of a study, one run a partition, and print the table of the rows there are.

    A daemon is started where none runs. Exit 0 all well, 1 a bar on the table failed, 2 a partition failed.
    """
    from curriculum.profile import load_profile
    from curriculum.rows.registry import row_study

    load_profile(profile)
    row_study(asset)
    ways = {"--all": every, "--missing": missing, "--resume": resume, "--partitions": bool(partitions)}
    chosen = [way for way, given in ways.items() if given]
    if len(chosen) != 1:
        raise UserError("say which partitions to make, in one way: --partitions a,b, --all, --missing or --resume")
    command = [sys.executable, "-m", "pipelines.backfill", asset, "--profile", profile, *chosen, *([partitions] if partitions else [])]
    os.chdir(PROJECT)
    os.execve(command[0], command, _environment(profile, fresh=False))  # in our place: signals and the exit code are its own


@app.command()
def topics(
    part: Annotated[str, typer.Option(help="foundations, search, ...; every part if none is named")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
    profile: ProfileOption = "starter",
) -> None:
    """Print every topic with what it claims, what was last measured, the bar, and the verdict. Nothing is computed."""
    from curriculum.profile import load_profile
    from curriculum.report.card import judgements
    from curriculum.report.table import print_topics
    from curriculum.report.topics import as_records, topic_rows
    from curriculum.syllabus import load_syllabus

    syllabus, loaded = load_syllabus(), load_profile(profile)
    rows = topic_rows(syllabus, loaded, judgements(syllabus, loaded, _store(loaded)), part)
    if as_json:
        typer.echo(json.dumps(as_records(rows), indent=1))
    else:
        print_topics(rows)


@app.command()
def drills(
    names: Annotated[list[str] | None, typer.Argument(help="daemon, step, corrupt, ...; all of them if none is named")] = None,
) -> None:
    """Break temporary installations on purpose, and print what held. Exit 0 all held, 1 a drill failed, 2 one could not be run here."""
    command = [sys.executable, "-m", "pipelines.drills.harness", *(names or [])]
    os.chdir(PROJECT)
    os.execve(command[0], command, {**os.environ, "CURRICULUM_HOME": str(home()), "PYTHONPATH": str(PROJECT)})  # in our place, as above


@app.command()
def ui(profile: ProfileOption = "starter", port: int = 3000, host: str = "127.0.0.1") -> None:
    """Open the Dagster UI and its daemon on the same instance."""
    command = [sys.executable, "-m", "dagster", "dev", "-m", "pipelines.definitions", "-p", str(port), "-h", host]
    raise typer.Exit(subprocess.run(command, cwd=PROJECT, env=_environment(profile, fresh=False), check=False).returncode)


@app.command()
def serve(profile: ProfileOption = "starter", port: int = 8080, host: str = "127.0.0.1") -> None:
    """Serve search and cited answers from the promoted versions, with a page for people; a later promotion is picked up by itself.

    CURRICULUM_SERVE_KEY is the key that requests must then give; on another host than this machine there must be one.
    """
    from curriculum.profile import load_profile
    from curriculum.serving.promoted import promoted_versions

    loaded = load_profile(profile)
    promoted_versions(_store(loaded), loaded)  # what is missing is said before the models' libraries are imported
    from curriculum.serving.server import serve as listen

    listen(loaded, _store(loaded), home(), host=host, port=port)


@app.command()
def annotate(
    sheet: Annotated[Path | None, typer.Argument(help="the CSV file to write: what people said, disputed answers first")] = None,
    labels: Annotated[list[Path] | None, typer.Option(help="a sheet that an annotator has filled; once for each annotator")] = None,
    profile: ProfileOption = "starter",
) -> None:
    """Write a round of annotation over the feedback that `curriculum serve` stored, or read the filled sheets and keep what they agree on."""
    from curriculum.profile import load_profile
    from curriculum.serving.annotation import agree, read_sheet, write_labels, write_round
    from curriculum.serving.feedback import annotation_items

    if (sheet is None) == (not labels):
        raise UserError("name the file to write, or give the filled sheets with --labels")
    folder = home() / "feedback" / load_profile(profile).name
    items = annotation_items(folder)
    if sheet is not None:
        typer.echo(f"{write_round(items, sheet)} items: {sheet}; give each annotator a copy, and come back with --labels COPY")
        return
    found = agree(items, [read_sheet(path) for path in labels or []])
    kappa = "no kappa" if found.kappa is None else f"kappa {found.kappa:.2f}"
    typer.echo(f"{kappa} over {found.both} items that two labelled; {len(found.kept)} labels kept, {found.disputed} disputed and left out")
    typer.echo(f"labels: {write_labels(found.kept, folder)}")


@app.command()
def service(
    command: Annotated[list[str], typer.Argument(help="one of the orchestrator's programs and its arguments, after --")],
    profile: ProfileOption = "starter",
) -> None:
    """Become one process of a deployment, such as ``service -- dagster-daemon run``, with this project's instance and environment."""
    from curriculum.profile import load_profile

    load_profile(profile)
    beside = Path(sys.executable).with_name(command[0])
    program = str(beside) if beside.exists() else shutil.which(command[0])
    if program is None:
        raise UserError(f"there is no program {command[0]!r} on the path; name one such as dagster-webserver or dagster-daemon")
    os.chdir(PROJECT)
    os.execve(program, [program, *command[1:]], _environment(profile, fresh=False))  # in our place: signals reach it


@app.command()
def notes(
    profile: ProfileOption = "starter",
    port: int = 8000,
    serve: Annotated[bool, typer.Option(help="stay and serve the pages, so that search works; --no-serve only builds them")] = True,
) -> None:
    """Build the study notes as a site with the learning path and the latest figures, and serve it."""
    from curriculum.evaluation.gate import active_bars
    from curriculum.profile import load_profile
    from curriculum.report.card import judgements, stored_results
    from curriculum.report.readme import every_figure, hardware, headline, recorded_judgements
    from curriculum.report.topics import topic_rows
    from curriculum.site.build import build_site, read_notes
    from curriculum.syllabus import load_syllabus

    syllabus, loaded = load_syllabus(), load_profile(profile)
    results, held = stored_results(_store(loaded)), judgements(syllabus, loaded, _store(loaded))
    record = PROJECT / "results" / f"{profile}.json"
    figures, measured = {name: every_figure(result) for name, result in results.items()}, f"As this machine last measured them, profile {profile}."
    if not results and record.exists():
        kept = json.loads(record.read_text(encoding="utf-8"))
        held = recorded_judgements(kept, active_bars(syllabus, loaded))
        figures, measured = kept.get("figures", {}), f"From the recorded run of profile {profile} on {hardware(kept)}."
    rows = topic_rows(syllabus, loaded, held)
    page = build_site(read_notes(PROJECT / "notes"), syllabus, headline(figures), rows, measured, home() / "site")
    typer.echo(f"notes: {page}")
    if serve:
        typer.echo(f"serving them on http://127.0.0.1:{port} (Ctrl-C ends)")
        command = [sys.executable, "-m", "http.server", str(port), "-b", "127.0.0.1", "-d", str(page.parent)]
        raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def readme(profile: ProfileOption = "starter") -> None:
    """Record the stored results in results/PROFILE.json; render the README's figures, docs/topics.md and docs/figures/ from them.

    What the record says of assets that have no result here stays. The figures of another profile than starter are written to docs/PROFILE.md.
    """
    from curriculum.evaluation.gate import milestone_rows
    from curriculum.profile import load_profile
    from curriculum.report.card import judgements, stored_results
    from curriculum.report.figures import figures_page, part_pages
    from curriculum.report.readme import README_PROFILE, record, recorded_topics, refreshed, topics_page, write_record
    from curriculum.syllabus import load_syllabus

    syllabus, loaded = load_syllabus(), load_profile(profile)
    store, page, path = _store(loaded), PROJECT / "README.md", PROJECT / "results" / f"{loaded.name}.json"
    held = judgements(syllabus, loaded, store)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    data = record(loaded, milestone_rows(syllabus, loaded, store), held, stored_results(store), kept)
    write_record(data, path)
    docs = PROJECT / "docs"
    if loaded.name != README_PROFILE:
        (docs / f"{loaded.name}.md").write_text(figures_page(data, loaded.description), encoding="utf-8")
        return
    page.write_text(refreshed(page.read_text(encoding="utf-8"), data), encoding="utf-8")
    rows = recorded_topics(data, syllabus, loaded)
    (docs / "topics.md").write_text(topics_page(data, rows), encoding="utf-8")
    (docs / "figures").mkdir(exist_ok=True)
    for part, text in part_pages(data, rows).items():
        (docs / "figures" / f"{part}.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Entry point: an error meant for the user is one line, not a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
