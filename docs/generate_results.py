"""Writes docs/results.md and docs/images/accuracy.svg from the results in research and benchmarks.

    python docs/generate_results.py

To be run after results were found anew; tests compare the page with what this writes. The picture
needs matplotlib.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs/results.md", ROOT / "docs/images/accuracy.svg"
RESEARCH, BENCHMARKS = ROOT / "research/results", ROOT / "benchmarks/results"
NETWORK = "small_vit"
CURVES = {
    "CAP, trained 2 epochs": ("sparse_training", "gradual_cap", "#2a9d57"),
    "magnitude, trained 2 epochs": ("sparse_training", "gradual_gm", "#e08a00"),
    "CAP, one shot": ("one_shot", "cap", "#3a6fd8"),
    "FastCAP, one shot": ("one_shot", "fast_cap", "#8f5fc9"),
    "OBS, one shot": ("one_shot", "obs", "#7a7f87"),
    "magnitude, one shot": ("one_shot", "gm", "#d04848"),
}
"""A line of the picture → results, method, colour."""
Points = dict[float, tuple[float, float]]
"""Sparsity → mean accuracy in percent, and its standard deviation over the seeds."""

TEMPLATE = """\
# Results

What has been measured, all of it on CPUs, with the commands in `research/` and `benchmarks/`. Cells
are test accuracies in percent unless it says otherwise: mean and standard deviation over the seeds,
whose number stands in parentheses. What to make of it is in [Choose a method](choosing.md). This
page is written by `docs/generate_results.py`.

## In one shot, without training

![Accuracy over sparsity of a small vision transformer](images/accuracy.svg)

CIFAR-10 (the two ResNets and the ViT; 512 gradients) and ImageNet (the MobileNets; 600 images,
sampling error near two points; 200 gradients). Blocks have 64 weights here, the recipes have more,
which [keeps more](second_order.md#the-quadratic-model) on some networks. **Where there are batch
norms the table flatters methods that update weights**: magnitude leaves batch norms with the
statistics of the dense network. [Measured anew](second_order.md#batch-norms-and-block-sizes) on
ResNet-20 at 80 %, magnitude has 78.9 and CAP 84.6.

{one_shot}

More methods, also in several steps, are compared in [Second-order
pruning](second_order.md#in-one-shot-on-cifar-10).

### A causal language model

A Llama of 260 thousand weights (TinyStories); loss of the next token, lower is better. Each method
has the dampening that did best for it.

{one_shot_causal}

## While training

20,000 images of CIFAR-10, seen twice (624 steps). At 95 % of ResNet-20 the learning rate matters
more than the pruner; for the table it was tuned for both.

{sparse_training}

## Smaller and faster

### Structured, to a goal

A small ViT on CIFAR-10 (2,000 test images) asked to be twice as fast, and trained for 300 steps.
ResNet-20 cannot be made twice as fast by removing channels inside its blocks: 1.94 times at the
most, which is told in one line.

{structured_goals}

### Which score

ResNet-20 on 1,000 images of CIFAR-10 (error about 1.3), a share of the channels removed in one
shot, beside the scores of Torch-Pruning (TP). The best of
ours and of theirs are level, within the error; `taylor` is the score of the recipes, and `sum`, the
default for old recipes, is below all others.

{structured_scores}

### An encoder, by SRP

**No gain over a small model from scratch at a fifth of the parameters**, with as many updates.

{shrinking_glue}

### A translator, by SRP

Multi30k, BLEU. Here too the small dense model trained for as long is as good.

{shrinking}

## Patterns on GLUE

`SnipMomentumPruningModifier`, with distillation, on 8,000 phrases; the published rows are of longer
runs with another model, to be compared in kind.

{transformers_glue}

## Grow-and-prune from scratch

A fairseq Transformer on Multi30k, 8 epochs, BLEU. **Grow-and-prune is below gradual magnitude
here**; on digits it was ahead where the dense network was fitted well
([figures](gap.md#what-to-choose)).

{translation}

## Composing from tuned blocks

{composability}
"""


def main() -> None:
    """Write page and picture."""
    PAGE.write_text(page(), encoding="utf-8")
    plot(PICTURE, curves())


def page() -> str:
    """Return the page as it should be."""
    tables = {path.stem: path.read_text("utf-8").strip() for path in RESEARCH.glob("*.md")}
    tables["structured_goals"] = (BENCHMARKS / "structured_goals.md").read_text("utf-8").strip()
    tables["structured_scores"] = _scores(_read(BENCHMARKS / "structured_scores.json"))
    return re.sub(r"\{(\w+)\}", lambda name: tables[name[1]], TEMPLATE)


def curves() -> dict[str, Points]:
    """Return the lines of the picture; the dense network stands alone at 0."""
    found = {}
    for title, (study, method, _) in {**CURVES, "dense": ("one_shot", "dense", "")}.items():
        values: dict[float, list[float]] = defaultdict(list)
        for row in _read(RESEARCH / f"{study}.json")["results"]:
            if (row["model"], row["method"]) == (NETWORK, method):
                values[row["sparsity"]].append(100 * row["accuracy"])
        found[title] = {
            sparsity: (mean(several), stdev(several) if len(several) > 1 else 0.0)
            for sparsity, several in sorted(values.items())
        }
    return found


def plot(path: Path, lines: Mapping[str, Points]) -> None:
    """Draw accuracy over sparsity, in colours that can be read on white and on black."""
    import matplotlib

    matplotlib.use("svg")
    grey = "#808790"
    given = {"svg.hashsalt": path.stem, "font.size": 10, "text.color": grey, "axes.edgecolor": grey}
    given |= {"axes.labelcolor": grey, "xtick.color": grey, "ytick.color": grey}
    matplotlib.rcParams.update(given)
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7.6, 3.6), layout="constrained")
    ((dense, _),) = lines["dense"].values()
    panel.axhline(dense, color=grey, lw=1, ls="--")
    panel.text(50, dense + 0.8, f"dense {dense:.1f} %", va="bottom")
    for title, (study, _, colour) in CURVES.items():
        xs = [100 * sparsity for sparsity in lines[title]]
        ys, errors = zip(*lines[title].values(), strict=True)
        style = {"marker": "s", "ls": "--"} if study == "sparse_training" else {"marker": "o"}
        panel.errorbar(xs, ys, errors, color=colour, label=title, capsize=2, ms=4, **style)
    panel.set(xlabel="weights that are zero, %", ylabel="test accuracy, %", ylim=(0, 80))
    panel.set_title("A small vision transformer on CIFAR-10, 3 seeds", fontsize=11)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(path, metadata={"Date": None}, transparent=True)
    pyplot.close(figure)


def _scores(content: dict[str, Any]) -> str:
    ((_, found),) = content["top1"].items()
    shares = content["options"]["sparsities"]
    dense = found["dense"]["0"]
    head = ["score", *(f"{share:.0%} removed" for share in shares)]
    rows = [
        [name, *(f"{100 * values[str(share)]:.1f}" for share in shares)]
        for name, values in found.items()
        if name != "dense"
    ]
    rows.sort(key=lambda row: -float(row[1]))
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"dense {100 * dense:.1f}\n\n{table}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
