"""What every command shares: --version, options from the environment, and how it ends.

Here alone errors become a line and an exit code.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, ParamSpec

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from petseg.errors import PetsegError
from petseg.photos.addresses import is_address, shown
from petseg.system.text import printable
from petseg.system.threads import leave

OK, FAILED, PARTLY_FAILED = 0, 1, 3
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
# What a command says that a signal ends.
_SIGNALLED = {
    signal.SIGINT: (INTERRUPTED, "interrupted"),
    signal.SIGTERM: (TERMINATED, "terminated"),
}

P = ParamSpec("P")

quiet_option = click.option("--quiet", is_flag=True, help="Errors only.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="End with one JSON object on stdout."
)


@contextlib.contextmanager
def _interrupted() -> Iterator[None]:
    """Ctrl-C before a command begins ends it as later: Click says "Aborted!" and exits with 1."""
    try:
        yield
    except KeyboardInterrupt:
        code, words = _SIGNALLED[signal.SIGINT]
        click.echo(words, err=True)
        leave(code)


class Command(click.Command):
    """A command of petseg's, see `command`; or, beside `click.Group`, a group of them."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """As `click.Command.main`; a pattern stays one argument on Windows, too."""
        return super().main(*args, **{"windows_expand_args": False} | extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As `click.Command.make_context`, which reads the options."""
        with _interrupted():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """As `click.Command.invoke`, which for a group loads the command."""
        with _interrupted():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As `click.Command.parse_args`; errors name the variable that the value comes from."""
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = None if error.param is None else variable(ctx, error.param)
            if name is None:
                raise
            words = f"{error.message}  It comes from the environment variable {name}."
            raise click.BadParameter(words, error.ctx, error.param) from error


def command(name: str) -> Callable[[Callable[..., None]], Command]:
    """`click.command`, with what all commands have: --version, and options from the environment.

    The option `--batch-size` of the command "batch" is PETSEG_BATCH_BATCH_SIZE in the environment,
    whether it is started as `petseg-batch` or as `petseg batch`.  Names that an option declares
    itself come after that one.  (Click's `auto_envvar_prefix` would take Python's names for the
    options: PETSEG_BATCH_AS_JSON.)
    """
    prefix = f"PETSEG_{name.upper()}"

    def decorate(function: Callable[..., None]) -> Command:
        made = click.command(
            name,
            cls=Command,
            epilog=f"Each option may also come from the environment: --some-option as "
            f"{prefix}_SOME_OPTION.",
        )(function)
        for parameter in made.params:
            if isinstance(parameter, click.Option):
                own = f"{prefix}_{parameter.opts[0].removeprefix('--').replace('-', '_').upper()}"
                more = parameter.envvar or ()
                parameter.envvar = [own, *((more,) if isinstance(more, str) else more)]
        made.params.append(version_option())
        return made

    return decorate


def version_option() -> click.Option:
    """`--version`, which loads what it tells of when it is asked."""
    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_versions,
        help="Show the versions of petseg and its libraries, and the provider taken here.",
    )


def _show_versions(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from petseg import doctor

        click.echo("\n".join(doctor.versions()))
        ctx.exit()


def variable(ctx: click.Context, param: click.Parameter) -> str | None:
    """The environment variable that an option's value comes from; None for another source."""
    if ctx.get_parameter_source(param.name or "") is not ParameterSource.ENVIRONMENT:
        return None
    names = [param.envvar] if isinstance(param.envvar, str) else param.envvar or ()
    return next((name for name in names if os.environ.get(name)), None)


class Here(click.Path):
    """A path on this machine; an address in a store is refused.

    As a Path it would lose a slash, and be looked for here.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        if isinstance(value, str) and is_address(value):
            self.fail(
                f"{shown(value)} is in a store, and this command works on files of this machine: "
                "copy the masks, or whatever it is, to a folder here, and name that",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


def paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete paths where others may stand as well; see `shell_complete`."""
    return [CompletionItem(incomplete, type="file")]


class Terminated(BaseException):
    """SIGTERM, raised where the main thread is, so that everything is closed on the way out."""


@contextlib.contextmanager
def _listening() -> Iterator[list[signal.Signals]]:
    """Let SIGINT raise KeyboardInterrupt and SIGTERM `Terminated`; those that came are listed.

    What is raised does not always come out as it is: the import of a C extension turns it into an
    ImportError.  A signal that is ignored, as nohup and shells do for programs in the background,
    stays so.
    """
    heard: list[signal.Signals] = []

    def hear(number: int, frame: FrameType | None) -> NoReturn:
        heard.append(signal.Signals(number))
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    before = {number: signal.getsignal(number) for number in _SIGNALLED}
    ours = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, hear)
    try:
        yield heard
    finally:
        for number in ours:
            signal.signal(number, before[number])


def exits(command: Callable[P, int]) -> Callable[P, None]:
    """Turn a function that returns an exit code, or raises one of petseg's errors, into a command.

    Where it has an argument `as_json` that is true, an object on stdout tells of such an end, too:
    its exit code and the error.  An unexpected error keeps its traceback, unless a signal came
    before it: it is then taken for what became of the signal.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        with _listening() as heard:
            try:
                leave(command(*args, **kwargs))
            except KeyboardInterrupt:
                code, words = _SIGNALLED[signal.SIGINT]
            except Terminated:
                code, words = _SIGNALLED[signal.SIGTERM]
            except Exception as error:
                if heard:
                    code, words = _SIGNALLED[heard[-1]]
                elif isinstance(error, PetsegError):
                    code, words = FAILED, str(error)
                else:
                    raise
        if kwargs.get("as_json"):
            click.echo(json.dumps({"exit_code": code, "error": words}))
        click.echo(words if code != FAILED else f"error: {printable(words)}", err=True)
        leave(code)

    return wrapper


@contextlib.contextmanager
def hushed(quiet: bool) -> Iterator[None]:
    """Where `quiet`, nothing for people on stderr: no bars, no notes, no lines on the way.

    Errors are told outside of it, by `exits`.
    """
    with contextlib.ExitStack() as stack:
        if quiet:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """An option's "0,1" as (0, 1); see `click.Option`'s `callback`."""
    try:
        return None if value is None else tuple(map(int, value.split(",")))
    except ValueError as error:
        words = f"expected numbers of devices, as in 0,1, found {value!r}"
        raise click.BadParameter(words, ctx, param) from error
