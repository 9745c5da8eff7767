"""`petseg COMMAND`: every command of petseg and of the packages that join it by entry point."""

from __future__ import annotations

from importlib.metadata import entry_points

import click

from petseg.cli.common import Command, version_option

GROUP = "petseg.commands"


class EntryPoints(Command, click.Group):
    """Commands found through entry points and imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(point.name for point in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for point in entry_points(group=GROUP, name=cmd_name):
            command = point.load()
            assert isinstance(command, click.Command)
            return command
        return None


@click.group(cls=EntryPoints, params=[version_option()])
def main() -> None:
    """Train a pet segmenter, export it, and turn folders of photos into masks."""
