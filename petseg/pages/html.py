"""From values to one HTML file: templates, style and script lie beside this module.

Whatever comes out of a value is escaped by Jinja, and made printable and not too long before that,
so that names of files can neither hold elements, nor turn around the text that they stand in, nor
make a page of any size.  The page's own rule
(Content-Security-Policy) lets browsers load nothing and run that one script alone.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import petseg
from petseg.system.temporary import write_whole
from petseg.system.text import as_text, printable, shortened

# Of one text that comes out of a value; names and messages are far shorter, unless crafted.
_MOST_CHARACTERS = 500


def write(path: Path, template: str, temporary: Path | None = None, **values: object) -> None:
    """Write a page, whole or not at all.

    Args:
        path: where it goes.
        template: its name.
        temporary: see `temporary.write_whole`.
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
    write_whole(path, text.encode(), temporary)


def data_address(kind: str, data: bytes) -> Markup:
    """The `data:` address of a picture of such a media type; it holds nothing to escape."""
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}")


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
    """A share 0..1 as percent, with one decimal; a dash for nan, a share of nothing."""
    return "\N{EN DASH}" if math.isnan(value) else f"{100 * value:.1f} %"


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
        return shortened(printable(as_text(value)), _MOST_CHARACTERS)
    return value
