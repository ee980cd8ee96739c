"""Journal: every measured run's settings, metrics and plots in MLflow, embedded by default."""

import dagster as dg

from curriculum.journal import journal_study
from curriculum.results import StudyResult


class Journal(dg.ConfigurableResource):
    """Writes a study to MLflow. ``uri`` is a tracking server or a local ``sqlite:///`` file; empty turns it off."""

    uri: str = ""
    artifacts: str = ""

    def record(self, result: StudyResult, *, run_id: str, version: str) -> str:
        """Log one study; returns MLflow's run id ("" when off)."""
        return journal_study(self.uri, self.artifacts, result, run_id=run_id, version=version) if self.uri else ""
