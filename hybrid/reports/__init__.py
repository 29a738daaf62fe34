"""Self-contained HTML reports: one look, inline charts, no network.

A component keeps its template `report.html.j2` beside its implementation and calls

    render(Path(__file__).with_name("report.html.j2"), Path(report.path), title=..., ...)

The template extends `base.html.j2` and takes its charts, cards, badges and tables from `charts.html.j2`:

    {% extends "base.html.j2" %}
    {% import "charts.html.j2" as charts %}
    {% block content %}{{ charts.hbars([("AA", 0.31), ("UA", 0.2)], format="percent") }}{% endblock %}

The Kubeflow UI shows a report in a sandboxed frame and on-premises sites have no internet, therefore style, script
and drawings are inline, and the page's own content security policy forbids everything else.
"""

import os
from pathlib import Path
from typing import Any

import jinja2

from kfp_hybrid import __version__
from kfp_hybrid.reports import geometry, text

_BASE = Path(__file__).parent


def render(template: Path, output: Path, **context: Any) -> None:
    """Write one HTML report; it appears whole or not at all.

    Args:
        template: the component's Jinja2 template, which extends `base.html.j2`. Its folder is searched for templates
            too, so that a report can have parts.
        output: the HTML file to write.
        **context: the values the template uses. `base.html.j2` itself needs `title`, and shows `eyebrow` (a short
            line above the title), `verdict` (`{"tone": "good" | "bad" | "warn", "label": "Valid"}`) and `reason`
            (one sentence) when they are given.

    Raises:
        jinja2.TemplateError: the template is wrong or uses a value that is not in the context.
    """
    page = _environment(template.parent).get_template(template.name).render(version=__version__, **context)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(output)


def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _BASE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(text.FORMATS)
    environment.globals.update(
        axis=geometry.axis, area=geometry.area, polyline=geometry.polyline, bar_axis=geometry.bar_axis,
        elide=text.elide, show=text.show,
    )  # fmt: skip
    return environment
