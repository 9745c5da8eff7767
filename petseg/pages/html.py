"""From values to one HTML file: templates, style and script lie beside this module.

Whatever comes out of a value is escaped by Jinja, and made printable before that, so that names of
files can neither hold elements nor turn around the text that they stand in.  The page's own rule
(Content-Security-Policy) lets browsers load nothing and run that one script alone.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import petseg
from petseg.temporary import replacing
from petseg.text import as_text, printable


def write(path: Path, template: str, **values: object) -> None:
    """Write a page, whole or not at all.

    Args:
        path: where it goes.
        template: its name.
        values: what the template names.

    Raises:
        OSError: it cannot be written.
    """
    script, style = _own("slider.js"), _own("style.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = (
        _environment()
        .get_template(template)
        .render(
            **values,
            script=Markup(script),
            style=Markup(style),
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'",
            version=petseg.__version__,
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def seconds(value: float) -> str:
    """A time as people say it: 0.3 ms, 12.5 s, 2 h 05 min."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 100:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def percent(value: float) -> str:
    """A share 0..1 as percent, with one decimal."""
    return f"{100 * value:.1f} %"


def number(value: float) -> str:
    """A number with its thousands set apart; below a thousand, three digits of it."""
    if value < 1000 and value != int(value):
        return f"{value:.3g}"
    return f"{round(value):,}"


def _own(name: str) -> str:
    return (files("petseg.pages") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("petseg.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": seconds, "percent": percent, "number": number}
    return environment


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(as_text(value))
    return value
