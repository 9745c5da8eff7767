"""`petseg doctor`: what this machine has for petseg, what is wrong, and what mends it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from petseg.cli.common import FAILED, OK, command, exits, hushed, json_option
from petseg.system.text import printable

if TYPE_CHECKING:
    from petseg.doctor import Finding


@command("doctor")
@json_option
@exits
def main(as_json: bool) -> int:
    """Look at GPU, driver, CUDA, cuDNN, onnxruntime, processor and optional packages.

    Nothing is changed.  Each thing is a line on stdout; what is wrong stands behind them, with the
    command that mends it.

    Exit codes: 0 nothing is wrong, though optional packages may be missing; 1 something is.
    """
    from petseg.doctor import examine

    # What onnxruntime prints of libraries that are missing is told below.
    with hushed(True):
        findings = examine()
    wrong = [finding for finding in findings if finding.problem]
    code = FAILED if wrong else OK
    if as_json:
        each = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"exit_code": code, "problems": len(wrong), "findings": each}))
    else:
        _show(findings, wrong)
    return code


def _show(findings: list[Finding], wrong: list[Finding]) -> None:
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        line = f"{finding.what:<{width}}  {finding.found}"
        # What is only not there is told at once; what is wrong, at the end.
        if finding.command and not finding.problem:
            line += f": {finding.command}"
        click.echo(printable(line))
    click.echo(f"\n{len(wrong)} problem{'' if len(wrong) == 1 else 's'}" if wrong else "\nall well")
    for finding in wrong:
        click.echo(printable(f"{finding.what}: {finding.problem}"))
        if finding.command:
            click.echo(f"    {finding.command}")
