"""Results of a study in one JSON file that several processes add to, and what is made of them."""

from __future__ import annotations

import fcntl
import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]
KEYS = ("model", "method", "seed", "sparsity")
COMMITTED = Path(__file__).resolve().parent / "results"
"""The results that the repository has; they change only by ``--out`` with this folder."""


class StudyResults:
    """Rows that stay in the file once they are there.

    :param path: of the JSON file
    :param settings: those of the study, written beside the rows
    :param known: a file of results that need not be found again, such as that of the repository;
        it stays as it is
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], known: Path | None = None) -> None:
        self.path, self.known = path, known
        self.settings = json.loads(json.dumps(settings))  # as they are read back

    @classmethod
    def of(cls, name: str, args: Namespace, settings: Mapping[str, Any]) -> StudyResults:
        """Return the results of a study.

        :param name: of the file, without its ending
        :param args: its flags ``out`` and ``again``
        """
        known = None if args.again or args.committed else COMMITTED / f"{name}.json"
        return cls(args.out / f"{name}.json", settings, known)

    def rows(self, path: Path | None = None) -> list[Row]:
        """What is there now.

        :raises ValueError: if it was found with other settings, or cannot be read
        """
        path = path or self.path
        if not path.exists():
            return []
        try:
            content = json.loads(path.read_bytes())
            settings: dict[str, Any] = content["settings"]
            rows: list[Row] = content["results"]
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} holds no results of a study: {error}") from error
        if settings != self.settings:
            raise ValueError(
                f"{path} holds results of other settings, {settings}: give another --out"
            )
        return rows

    def missing(self, model: str, method: str, seed: int, wanted: Sequence[float]) -> list[float]:
        """The sparsities that have no result yet."""
        rows = [*self.rows(), *(self.rows(self.known) if self.known else [])]
        found = {tuple(row[key] for key in KEYS) for row in rows}
        return [s for s in wanted if (model, method, seed, s) not in found]

    def tell(self, wanted: int, left: int) -> None:
        """Say how many results are there already, where, and what happens now."""
        there = [path for path in (self.path, self.known) if path and path.exists()]
        if left < wanted:
            where = " and ".join(str(path.with_suffix(".*")) for path in there)
            print(f"{wanted - left} of {wanted} results are there: {where}")
            anew = f"--again, into {self.path.parent}" if self.known else "another --out"
            print(f"to find them anew: {anew}")
        if left:
            print(f"{left} of {wanted} results are to be found; they go to {self.path}", flush=True)

    def add(self, row: Row) -> None:
        """Write one more row; other processes may do so at the same time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            rows = [old for old in self.rows() if any(old[key] != row[key] for key in KEYS)]
            rows = sorted([*rows, row], key=lambda one: [one[key] for key in KEYS])
            lines = ",\n  ".join(json.dumps(one) for one in rows)
            settings = json.dumps(self.settings, indent=1)
            new = self.path.with_suffix(".new")
            new.write_text(f'{{"settings": {settings},\n "results": [\n  {lines}\n ]}}\n')
            os.replace(new, self.path)

    def show(
        self,
        models: Mapping[str, str],
        methods: Mapping[str, str],
        sparsities: Sequence[float],
        page: Path,
        picture: Path | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Write the table (``.md``) and the plot (``.svg``) beside the results, if there are any.

        :param page: Markdown with comments of the results' name, see :func:`write_between`: it gets
            the table of the committed results
        :param picture: where their plot goes, if not beside them
        :param notes: what must be known to compare the figures of a model
        """
        rows, committed = self.rows(), self.path.parent == COMMITTED
        if not rows:
            return
        self.publish(table(rows, models, methods, sparsities, notes), page)
        beside = self.path.with_suffix(".svg")
        plot(picture if committed and picture else beside, rows, models, methods, sparsities)

    def publish(self, text: str, page: Path) -> None:
        """Write a table (``.md``) beside the results; that of the committed ones into a page, too.

        :param page: Markdown with comments of the results' name, see :func:`write_between`
        """
        self.path.with_suffix(".md").write_text(text)
        if self.path.parent == COMMITTED:
            write_between(page, self.path.stem, text)
        print(f"table: {self.path.with_suffix('.md')}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def add_flags(parser: ArgumentParser, study: str) -> None:
    """Add the flags that say where results go and which are found."""
    parser.set_defaults(study=study)
    add = parser.add_argument
    add("--out", type=Path, help=f"where results and runs go [runs/{study}]")
    add("--again", action="store_true", help="find anew what the repository has results of")
    add("--render", action="store_true", help="only write table and plot of what is in --out")


def settle(args: Namespace) -> None:
    """Make the folder of the results absolute, and set that of the runs."""
    runs = COMMITTED.parents[1] / "runs" / args.study
    args.out = runs if args.out is None else args.out.absolute()
    args.committed = args.out == COMMITTED
    args.runs = runs if args.committed else args.out


def accuracies(
    rows: Sequence[Row], model: str, method: str, sparsity: float, key: str = "accuracy"
) -> list[float]:
    """The accuracies in percent, one for each seed that has one of that key."""
    return [
        100 * row[key]
        for row in rows
        if (row["model"], row["method"], row["sparsity"]) == (model, method, sparsity)
        and key in row
    ]


def table(
    rows: Sequence[Row],
    models: Mapping[str, str],
    methods: Mapping[str, str],
    sparsities: Sequence[float],
    notes: Mapping[str, str] | None = None,
) -> str:
    """Markdown: means and standard deviations, with the number of seeds behind them.

    Models of which nothing is known yet are left out.

    :param models: titles by the models' names
    :param methods: titles by the methods' names
    :param notes: text below the titles, by the models' names
    """
    parts = []
    for model, title in _begun(rows, models).items():
        dense = accuracies(rows, model, "dense", 0.0)
        heading = f"**{title}**" + (f", dense {dense[0]:.2f}" if dense else "")
        lines = [
            "| method | " + " | ".join(f"{100 * s:.0f}%" for s in sparsities) + " |",
            "|---" * (len(sparsities) + 1) + "|",
        ]
        for method, name in methods.items():
            cells = [_cell(accuracies(rows, model, method, s)) for s in sparsities]
            lines.append(f"| {name} | " + " | ".join(cell or "-" for cell in cells) + " |")
        note = [f"({notes[model]})", ""] if notes and model in notes else []
        parts.append("\n".join([heading, "", *note, *lines]))
    return "\n\n".join(parts) + "\n"


def beside(
    before: Sequence[Row],
    rows: Sequence[Row],
    models: Mapping[str, str],
    methods: Mapping[str, str],
    sparsities: Sequence[float],
) -> str:
    """Markdown like that of :func:`table`, each sparsity in several columns: earlier results, and
    now with the batch norms of the dense network, measured anew, and as users get them.

    :param before: rows of the earlier study
    :param rows: as now found; ``old`` and ``new`` are accuracies where there are batch norms
    """
    parts = []
    for model, title in _begun(rows, models).items():
        norms = any("old" in row for row in rows if row["model"] == model)
        kinds = {"old": "old norms", "new": "norms anew"} if norms else {}
        here = [s for s in sparsities if any(row["sparsity"] == s for row in rows)]
        heads = [f"{100 * s:.0f}% {kind}" for s in here for kind in ("before", *kinds.values(), "")]
        dense = accuracies(rows, model, "dense", 0.0)
        lines = ["| method | " + " | ".join(map(str.strip, heads)) + " |"]
        lines.append("|---" * (len(heads) + 1) + "|")
        for method, name in methods.items():
            cells = [
                _cell(accuracies(some, model, method, s, key))
                for s in here
                for some, key in [
                    (before, "accuracy"), *((rows, one) for one in kinds), (rows, "accuracy")
                ]
            ]  # fmt: skip
            lines.append(f"| {name} | " + " | ".join(cell or "-" for cell in cells) + " |")
        heading = f"**{title}**" + (f", dense {dense[0]:.2f}" if dense else "")
        parts.append("\n".join([heading, "", *lines]))
    return "\n\n".join(parts) + "\n"


def _begun(rows: Sequence[Row], models: Mapping[str, str]) -> dict[str, str]:
    known = {row["model"] for row in rows}
    return {model: title for model, title in models.items() if model in known}


def _cell(found: Sequence[float]) -> str:
    if len(found) < 2:
        return f"{found[0]:.2f} (1)" if found else ""
    return f"{mean(found):.2f} ± {stdev(found):.2f} ({len(found)})"


def plot(
    path: Path,
    rows: Sequence[Row],
    models: Mapping[str, str],
    methods: Mapping[str, str],
    sparsities: Sequence[float],
) -> None:
    """One panel for each model: mean accuracy over sparsity, bars of one standard deviation.

    Up to three panels stand side by side.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem  # the same picture is the same file
    from matplotlib import pyplot

    models = _begun(rows, models)
    wide = min(3, len(models))
    high = -(-len(models) // wide)
    figure, panels = pyplot.subplots(high, wide, figsize=(6 * wide, 4.6 * high), squeeze=False)
    for panel in panels.flat[len(models) :]:
        panel.set_axis_off()
    for panel, (model, title) in zip(panels.flat, models.items(), strict=False):
        for number, (method, name) in enumerate(methods.items()):
            found = {s: f for s in sparsities if (f := accuracies(rows, model, method, s))}
            if not found:
                continue
            panel.errorbar(
                [100 * s for s in found],
                [mean(values) for values in found.values()],
                [stdev(values) if len(values) > 1 else 0.0 for values in found.values()],
                label=name,
                color=f"C{number}",
                marker="os^vD<>Pp*X"[number % 11],
                linestyle="--" if "agnitude" in name else "-",
                markersize=4,
                capsize=2,
            )
        for dense in accuracies(rows, model, "dense", 0.0):
            panel.axhline(dense, color="gray", linewidth=0.8, linestyle=":")
        panel.set(title=title, xlabel="weights pruned, %", ylabel="test accuracy, %", ylim=(0, 100))
        panel.grid(alpha=0.3)
    panels.flat[len(models) - 1].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def write_between(path: Path, name: str, text: str) -> None:
    """Put text between the comments ``name:begin`` and ``name:end`` of a Markdown file.

    :raises ValueError: if they are not there
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    content = path.read_text()
    if begin not in content or end not in content:
        raise ValueError(f"{path} has no lines {begin.strip()} and {end}")
    before, _, rest = content.partition(begin)
    path.write_text(before + begin + "\n" + text + "\n" + end + rest.partition(end)[2])
