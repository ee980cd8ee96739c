"""Journal: every measured run's settings, metrics and plots in MLflow, embedded by default."""

import tempfile
from pathlib import Path

import dagster as dg

from curriculum.results import StudyResult


class Journal(dg.ConfigurableResource):
    """Writes a study to MLflow. ``uri`` is a tracking server or a local ``sqlite:///`` file; empty turns it off."""

    uri: str = ""
    artifacts: str = ""

    def record(self, result: StudyResult, *, run_id: str, version: str) -> str:
        """Log one study; returns MLflow's run id ("" when off). Non-finite metrics are left to the result record."""
        if not self.uri:
            return ""
        import math

        import mlflow

        mlflow.set_tracking_uri(self.uri)
        client = mlflow.MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("curriculum")
        location = Path(self.artifacts).absolute().as_uri() if self.artifacts else None
        experiment_id = experiment.experiment_id if experiment else client.create_experiment("curriculum", location)
        tags = {"dagster_run": run_id, "artifact_version": version, "study": result.study}
        run = client.create_run(experiment_id, run_name=result.study, tags=tags)
        key = run.info.run_id
        for name, value in result.settings.items():
            client.log_param(key, name[:250], str(value)[:500])
        for metric in result.metrics:
            if math.isfinite(metric.value):
                client.log_metric(key, metric.name.replace("@", "_at_"), metric.value)
        with tempfile.TemporaryDirectory() as folder:
            result.save(Path(folder))
            client.log_artifacts(key, folder)
        client.set_terminated(key)
        return key
