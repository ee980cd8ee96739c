"""Command lines read by the programs they name, without running them."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import click
import typer


def program(name: str) -> click.Command:
    """The click command behind an installed console script.

    Raises:
        ValueError: no installed package has such a script.
    """
    if name == "curriculum":
        from curriculum.cli import app

        return typer.main.get_command(app)
    found = [entry for entry in entry_points(group="console_scripts") if entry.name == name]
    if not found:
        raise ValueError(f"no installed package has a program {name!r}")
    made = {"dagster-webserver": "dagster_webserver.cli:dagster_webserver", "dagster": "dagster._cli:create_dagster_cli"}
    made["dagster-daemon"] = "dagster._daemon.cli:create_dagster_daemon_cli"
    if name not in made:
        return found[0].load()
    module, attribute = made[name].split(":")
    imported = getattr(__import__(module, fromlist=[attribute]), attribute)
    return imported() if attribute.startswith("create") else imported


def parse(line: list[str]) -> dict[str, Any]:
    """The parameters of the innermost command of a line.

    Raises:
        click.UsageError: the program has no such option, argument or command.
    """
    command, rest = program(line[0]), line[1:]
    while True:
        context = command.make_context(command.name or line[0], list(rest))
        if not hasattr(command, "resolve_command"):  # a group, of click or of typer's own copy of it
            return context.params
        _, command, rest = command.resolve_command(context, context._protected_args + context.args)
        assert command is not None
