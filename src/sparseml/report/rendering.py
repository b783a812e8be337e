"""Writing reports: one page that needs nothing else, the same as Markdown, and as JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sparseml.report.findings import compare_runs, run_findings
from sparseml.report.grouping import arranged
from sparseml.report.panels.charts import THEME
from sparseml.report.panels.runtime import ABSENT, chart_script
from sparseml.report.reading import Run, find_runs, read_run
from sparseml.report.run_directory import REPORT_FILES, utc_now
from sparseml.report.views import comparison_view, run_view
from sparseml.utils.atomic import atomic_path
from sparseml.utils.plain import plain_data
from sparseml.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT_FORMAT = "sparseml-report/1"

_PathLike = str | os.PathLike[str]


class WrittenReport(NamedTuple):
    """The three files of a report."""

    html: Path
    json: Path
    markdown: Path


def write_report(
    paths: _PathLike | Iterable[_PathLike], out: _PathLike | None = None
) -> WrittenReport:
    """Write ``report.html``, ``report.json`` and ``report.md`` on one run or several.

    :param paths: run directories, or folders of run directories
    :param out: folder for the files; by default the only path or, for several, the folder that
        they all lie in
    :raises NotARunError: for a folder that is missing or holds no run
    :raises ValueError: for several runs that do not lie in one folder, without ``out``
    :raises ImportError: without the package Jinja2
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    folders = list(dict.fromkeys(run for path in given for run in find_runs(path)))
    chosen = out or (given[0] if len(given) == 1 else None)
    target = Path(chosen).expanduser().absolute() if chosen else _common_folder(folders)
    runs = arranged([read_run(folder) for folder in folders])
    context = _context(runs)
    files = WrittenReport(*(target / name for name in REPORT_FILES))
    environment = _environment()
    contents = (
        html_page("report.html.j2", context),
        json.dumps(report_data(runs), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        environment.get_template("report.md.j2").render(context),
    )
    for file, content in zip(files, contents, strict=True):
        with atomic_path(file) as part:
            part.write_text(content, encoding="utf-8")
    return files


def _common_folder(folders: Sequence[Path]) -> Path:
    if len(folders) == 1:
        return folders[0]
    parents = {folder.parent for folder in folders}
    if len(parents) > 1:
        raise ValueError(
            "the runs lie in different folders, so say where the report is to be written: "
            "--out on the command line, out= in Python"
        )
    return parents.pop()


def report_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what a report tells, as plain data."""
    return plain_data(
        {
            "format": REPORT_FORMAT,
            "written_by": f"sparseml {__version__}",
            "written": utc_now(),
            "comparison": [found._asdict() for found in compare_runs(runs) if len(runs) > 1],
            "runs": [_run_data(run) for run in runs],
        }
    )


def _run_data(run: Run) -> dict[str, Any]:
    return {
        "folder": run.path.name,
        **run.info.model_dump(),
        "label": run.name,
        "group": run.group,
        "findings": [found._asdict() for found in run_findings(run)],
        "missing": run.problems,
        "config": run.config,
        "environment": run.environment,
        "recipe": run.recipe,
        "schedule": run.schedule,
        "metrics": {
            "last_step": run.metrics.last_step,
            "pruning_steps": run.metrics.update_steps,
            "last": {name: points[-1][1] for name, points in run.metrics.series.items()},
        },
        **run.result.model_dump(),
    }


def _context(runs: Sequence[Run]) -> dict[str, Any]:
    several = len(runs) > 1
    keys = [f"run-{number}" for number, _ in enumerate(runs)]
    return {
        "title": f"{len(runs)} runs compared" if several else runs[0].name,
        "subtitle": _subtitle(runs),
        "comparison": comparison_view(runs, keys) if several else None,
        "runs": [run_view(run, key) for run, key in zip(runs, keys, strict=True)],
    }


def _subtitle(runs: Sequence[Run]) -> str:
    written = f"Report of {utc_now()[:10]}"
    if len(runs) > 1:
        return f"{written}, sparseml {__version__}"
    info, seed = runs[0].info, runs[0].config.get("seed")
    parts = [
        "not finished" if info.status == "running" else info.status,
        f"begun {info.created[:16].replace('T', ' ')} UTC" if info.created else "",
        f"seed {seed}" if seed is not None else "no seed recorded",
        written,
    ]
    return " · ".join(filter(None, parts))


def html_page(template: str, context: dict[str, Any]) -> str:
    """Return a page that needs nothing else, and that runs no script but its own.

    :param context: for the template; its ``title`` and ``subtitle`` for the head
    :raises ImportError: without the package Jinja2
    """
    environment = _environment()
    own = environment.get_template("report.js").render()
    runtime = chart_script()
    scripts = [own] if runtime is None else [runtime, own]
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    shell = {
        "absent": None if runtime else ABSENT,
        "scripts": scripts,
        "hashes": hashes,
        "theme": THEME,
        "version": __version__,
    }
    return environment.get_template(template).render({**context, **shell})


@lru_cache(maxsize=1)
def _environment() -> Environment:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            f"reports need Jinja2 ({error}); pip install 'sparseml-next[report]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparseml.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    environment.filters["fence"] = _fence
    environment.filters["cell"] = lambda text: _plain(text).replace("|", "\\|")
    return environment


def _fence(text: str) -> str:
    """Return what begins and ends a block of code in Markdown, longer than any such in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _plain(text: object) -> str:
    """Return text for Markdown on one line, in which no HTML of a name stays any."""
    return " ".join(str(text).split("\n")).replace("&", "&amp;").replace("<", "&lt;")
