"""The report: one HTML page of a walked roadmap that opens offline, in any browser, and can be sent as a file.

Everything is inside: styles, scripts (ours and uPlot, MIT), and the figures as JSON. What models and corpora
wrote is shown as text only: the scripts build the page with textContent, the JSON cannot end its script tag,
and the page's own policy forbids any script or style that is not one of these, and every connection but, of the live
page, that to where it came from.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from gradus.core.files import write_atomic
from gradus.core.home import REPORT
from gradus.roadmap.report_data import report_data
from gradus.roadmap.report_versus import versus_data

ASSETS = "report_assets"
# In the order they run; each part of ours sees what the ones before it define.
SCRIPTS = (
    "dom.js", "format.js", "head.js", "abilities.js", "stages.js", "questions.js", "audit.js", "charts.js",
    "samples.js", "lineage.js", "composition.js", "record.js", "versus.js", "live.js", "main.js",
)  # fmt: skip
_ONLY_WHERE = {"versus.js": "versus", "live.js": "live"}  # parts that pages without these figures do not carry
_SPACED = re.compile(r"\s*([{};])\s*")  # punctuation of a style sheet that needs no space around it
_SLOT = re.compile(r"\{\{(\w+)\}\}")
# Characters that could end the script tag or start a comment in it, line ends that old scripts know, and
# halves of surrogate pairs, which no UTF-8 file can hold.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of runs/<roadmap>, finished or not, and return its path.

    out: where to; None is report.html in the run folder. Errors: ArtifactError where the folder is no run.
    """
    path = out if out is not None else run_folder / REPORT
    page = report_page(report_data(run_folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path


def write_comparison(first: Path, second: Path, out: Path | None = None) -> Path:
    """Write the page that sets the run folder `second` against `first`, and return its path.

    out: where to; None is against-FIRST.html in the folder of the second. Errors: those of `versus_data`.
    """
    path = out if out is not None else second / f"against-{first.name}.html"
    page = report_page(versus_data(first, second))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path


def report_page(data: Mapping[str, Any]) -> str:
    """The page for what `report_data` or `versus_data` gathered."""
    parts = [name for name in SCRIPTS if _ONLY_WHERE.get(name, "name") in data]
    ours = "\n".join(_squeezed(_asset(name)) for name in parts)
    scripts = {"uplot": _asset("uplot.min.js"), "script": f'"use strict";(() => {{\n{ours}\n}})();'}
    style = _asset("uplot.min.css") + "\n" + _SPACED.sub(r"\1", _squeezed(_asset("report.css")))
    licence = _asset("uplot.LICENSE").strip().replace("--", "- -")
    policy = (
        f"default-src 'none'; script-src {' '.join(_hash(text) for text in scripts.values())}; "
        f"style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
        + ("; connect-src 'self'" if "live" in data else "")
    )
    slots = {
        "title": html.escape(f"{data['name']} · gradus report"),
        "policy": policy,
        "licence": licence,
        "style": style,
        "summary": html.escape(str(data["verdict"]["text"])),
        "data": script_json(data),
        **scripts,
    }
    # One pass, so that nothing which a slot holds is taken for another slot.
    return _SLOT.sub(lambda match: slots[match[1]], _asset("report.html"))


def script_json(value: Any) -> str:
    """JSON that stays inert inside a script tag; numbers that are not finite become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _asset(name: str) -> str:
    return resources.files("gradus.roadmap").joinpath(ASSETS, name).read_text(encoding="utf-8")


def _squeezed(text: str) -> str:
    """A script or style without indents, empty lines and comment lines, a seventh of its size."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/*")))


def _hash(text: str) -> str:
    """The source expression by which a policy names one inline script or style."""
    # The browser reads the page's line ends as \n, whatever the asset's were; ours are \n already.
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
