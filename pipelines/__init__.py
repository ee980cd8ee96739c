"""When it runs: definitions, jobs, schedules, sensors, guardrails."""
