"""The console: one line a step and a progress message, instead of every event."""

import logging
import time

import dagster as dg

_SHOWN = {"STEP_START": "started", "STEP_SUCCESS": "done", "STEP_FAILURE": "FAILED", "STEP_SKIPPED": "skipped"}


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        step = meta.get("step_key") or ""
        if event is None:
            text = meta.get("orig_message") or record.getMessage()
        else:
            kind = event.event_type_value
            if kind not in _SHOWN:
                return
            text = f"{step}: {_SHOWN[kind]}"
            if kind == "STEP_SUCCESS":
                text += f" in {event.event_specific_data.duration_ms / 1000:.1f} s"
            if kind == "STEP_FAILURE":
                error = event.event_specific_data.error
                while error is not None and error.cause is not None:
                    error = error.cause
                text += f": {error.message.strip() if error else ''}"
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)


@dg.logger(description="One line a step, with progress.")
def progress_logger(_: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("progress", level=logging.INFO)
    logger.addHandler(_Lines())
    return logger
