"""What is seen while the demo runs and at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Advance = Callable[[int, str], None]
DENSE = "dense"
PLAIN_LINES = 6  # how many lines a job prints where there is no terminal to draw a bar on


@contextmanager
def job(console: Console, name: str, total: int) -> Iterator[Advance]:
    """Show the progress of a job: give ``advance(done, news)`` to call as it proceeds."""
    if not console.is_terminal:
        yield lambda done, news: _print_some(console, name, done, total, news)
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(24), TextColumn("{task.fields[n]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(name, total=total, n="")
        yield lambda done, news: progress.update(task, completed=done, n=news)


def _print_some(console: Console, name: str, done: int, total: int, news: str) -> None:
    every = max(1, total // PLAIN_LINES)
    if done % every == 0 or done == total:
        console.print(f"{name}: {done}/{total}  {news}", highlight=False)


def gains(results: list[dict[str, Any]]) -> Table:
    """What counts, at a glance: the dense model, zeros by CAP, and a model that is smaller."""
    dense = results[0]
    shown = Table(
        title="What was gained", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    shown.add_column("run", no_wrap=True)
    for heading in ("accuracy", "parameters", "gzip KiB", "ms", "faster"):
        shown.add_column(heading, justify="right", no_wrap=True)
    names = {DENSE: "dense", "one-shot CAP 90%": "zeros: one-shot CAP 90%"}
    names["structured"] = "smaller: structured"
    for result in (one for one in results if one["name"] in names):
        median = result["latency_ms"][1]
        shown.add_row(
            names[result["name"]],
            f"{result['accuracy']:.2%}",
            f"{result['parameters']:,}",
            f"{result['compressed_bytes'] / 1024:.0f}",
            f"{median:.3g}",
            f"{dense['latency_ms'][1] / median:.2f}x",
        )
    return shown


def table(results: list[dict[str, Any]]) -> Table:
    """One row per run; the first one is the dense model, against which the others are seen."""
    dense = results[0]
    shown = Table(
        title="Handwritten digits", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    shown.add_column("run", no_wrap=True)
    for heading in ("accuracy", "vs dense", "zeros", "gzip KiB", "ms (quartiles)"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        low, median, high = result["latency_ms"]
        lost = 100 * (result["accuracy"] - dense["accuracy"])
        smaller = dense["compressed_bytes"] / result["compressed_bytes"]
        shown.add_row(
            result["name"],
            f"{result['accuracy']:.2%}",
            "" if result is dense else f"{lost:+.2f}{' =' if result['equal'] else '  '}",
            f"{result['sparsity']:.1%}",
            f"{result['compressed_bytes'] / 1024:.0f} ({smaller:.1f}x)",
            f"{median:.3g} ({low:.3g}-{high:.3g})",
        )
    return shown


def notes(results: list[dict[str, Any]], batch: int, samples: int) -> str:
    """What the columns of the table mean, and what they do not show."""
    smaller = next(result for result in results if result["reached"])
    medians = [result["latency_ms"][1] for result in results if not result["reached"]]
    differ, rounds = max(medians) / min(medians) - 1, results[0]["latency_rounds"]
    unsettled = "" if results[0]["latency_settled"] else ", which had not settled,"
    return f"""\
run        uniform and FastCAP take the same fraction from every layer; global and CAP rank the
           weights of all layers together. Uniform and global go by size alone; FastCAP and CAP
           sample gradients on training images, and the weights that stay make up for those that
           go. Only the gradual and the structured run train any further. The structured one
           takes heads and neurons out of the network:
           {smaller["reached"]}
accuracy   on test images that training never saw; vs dense in percentage points, and with a = if
           it is equal to dense within what {samples} images can tell
zeros      among the weights that the recipes may prune (not: embedding, norms, biases, head)
gzip KiB   of all weights as float32, level 6, and how many times smaller than dense;
           uncompressed {results[0]["bytes"] / 1024:.0f} KiB
ms         of {batch} images on one thread: the median of {rounds} rounds, the models taking turns.
           The medians{unsettled} of all but the structured network differ by up to {differ:.0%},
           and not because of the zeros: a dense CPU kernel multiplies by zero as slowly as by any
           other number. Scattered zeros save storage and transfer; time only with kernels made
           for sparse weights.
"""


def plot(results: list[dict[str, Any]], histories: dict[str, list[dict]], path: Path) -> None:
    """Accuracy over sparsity for every method, and accuracy and sparsity while training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    dense, pruned = results[0], results[1:]
    left.axhline(dense["accuracy"], color="gray", linestyle=":", label="dense")
    for method in dict.fromkeys(result["method"] for result in pruned):
        mine = [result for result in pruned if result["method"] == method]
        points = [(result["sparsity"], result["accuracy"]) for result in mine]
        left.plot(*zip(*points, strict=True), marker="o", label=method)
    left.set(xlabel="fraction of zeros", ylabel="test accuracy", title="After pruning")
    left.legend()
    for number, (name, history) in enumerate(histories.items()):
        epochs = [entry["epoch"] for entry in history]
        for key, style in (("accuracy", "-"), ("sparsity", "--")):
            values = [entry[key] for entry in history]
            right.plot(epochs, values, style, color=f"C{number}", label=f"{name}: {key}")
    right.set(xlabel="epoch", title="While training")
    right.legend()
    figure.savefig(path, dpi=120)
