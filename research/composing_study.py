"""Prune a translator in four ways, with blocks that are tuned once and shared, and without.

    python research/composability/train_origin.py --fairseq checkpoint_last.pt \\
        --subwords bpe.model --dictionary dict.en.txt
    python research/composing_study.py

A ``nn.Transformer`` of 2 + 2 layers of 128 has learned Multi30k, English to German: it is the dense
model of ``translation_study.py``. Each of four configurations keeps half or a fifth of the weights
of feed-forward layers, and half or a quarter of the heads. Either each is pruned and fine-tuned by
itself, or put together from blocks that were tuned before; then it is fine-tuned as long, with the
same learning rates and batches. BLEU (sacreBLEU, greedy for all) is that of the first 500 test
sentences; the first 100 validation sentences tell how it comes about. Times are seconds of the
processor, of training only.
The repository has the results (``research/results/composability.md``); ``--again`` finds them anew.
"""

from __future__ import annotations

import itertools
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from study_results import Row, StudyResults, add_flags, settle
from study_tasks import ROOT

sys.path.insert(0, str(Path(__file__).resolve().parent / "composability"))

import multi30k

from sparseml.compose.asking import Configuration
from sparseml.compose.finishing import FinishJob, finish
from sparseml.compose.origin import Lent, load_origin
from sparseml.compose.planning import costs_of
from sparseml.compose.tuning import TuneJob, asking_of, make_plan, prune_blocks, tune
from sparseml.pytorch.functional.composing.costs import Costs
from sparseml.pytorch.sparsification.composing.blocks import Plan
from sparseml.pytorch.sparsification.composing.store import BlockStore
from sparseml.pytorch.sparsification.composing.student import TuningSettings
from sparseml.run.errors import run_reported

NAME, MODEL = "composability", "multi30k"
PAGE = ROOT / "docs/composability.md"
BLOCKS, DIRECT, COMPOSED, ORIGIN = "blocks", "direct", "composed", "origin"
HIGH, LOW = 0.5, 0.2
PARTS = {
    "half": (HIGH, HIGH),
    "fifth": (LOW, LOW),
    "half_fifth": (HIGH, LOW),
    "fifth_half": (LOW, HIGH),
}
"""Configurations: the densities of encoder and decoder."""
TESTED = 500
JUDGED, BLOCK_EPOCHS, EPOCHS, RATE, BLOCK_RATE = 100, 4, 4, 1e-3, 2e-3
RECIPE = f"""modifiers:
  - !EpochRangeModifier {{start_epoch: 0.0, end_epoch: {float(EPOCHS)}}}
  - !LearningRateFunctionModifier
      lr_func: linear
      init_lr: {RATE}
      final_lr: 0.0
      start_epoch: 0.0
      end_epoch: {float(EPOCHS)}
"""
SETTINGS = {
    "part_of_an_epoch": 1 / multi30k.PARTS,
    "epochs": EPOCHS,
    "block_epochs": BLOCK_EPOCHS,
    "lr": RATE,
    "block_lr": BLOCK_RATE,
    "configurations": PARTS,
    "judged": [JUDGED, TESTED],
}


def main() -> None:
    """Do what is left to do, then show it."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--origin", type=Path, default=multi30k.work_folder() / "origin.safetensors")
    add("--seeds", type=int, nargs="+", default=[0, 1], metavar="SEED")
    add("--minutes", type=float, help="begin nothing after so many")
    add_flags(parser, "composing_study")
    args = parser.parse_args()
    settle(args)
    torch.set_num_threads(1)
    results = StudyResults.of(NAME, args, SETTINGS)
    jobs = [(ORIGIN, "", 0)]
    for seed in args.seeds:
        jobs.append((BLOCKS, "", seed))
        jobs += [(method, name, seed) for name in PARTS for method in (COMPOSED, DIRECT)]
    left = [job for job in jobs if results.missing(MODEL, job[0], job[2], [job[1]])]  # type: ignore[list-item]
    if not args.render:
        results.tell(len(jobs), len(left))
        if left and not args.origin.exists():
            raise SystemExit(f"--origin: no {args.origin}; train_origin.py makes it")
        began = time.monotonic()
        for job in left:
            if args.minutes and time.monotonic() - began > 60 * args.minutes:
                print("no time for more")
                break
            Study(args, results).run(*job)
    if rows := results.rows():
        results.publish(table(rows), PAGE)


class Study:
    """What a result takes: the origin, its plan and its data."""

    def __init__(self, args: Namespace, results: StudyResults) -> None:
        self.args, self.results = args, results
        self.model = load_origin("multi30k:model", str(args.origin))
        self.judge = Timed(multi30k.Multi30k(judged=JUDGED))
        self.data = Lent(self.judge)

    def plan(self) -> Plan:
        """Return the plan of the four configurations."""
        asking = asking_of(self.model, self.data, False)
        base = {"model": "multi30k:model", "weights": str(self.args.origin)}
        return make_plan(self.model, configurations(self.model), asking, base=base)[0]

    def run(self, method: str, name: str, seed: int) -> None:
        """Find one result, and keep it."""
        print(f"{method} {name}, seed {seed}", flush=True)
        row: Row = {"model": MODEL, "method": method, "seed": seed, "sparsity": name}
        plan = self.plan()
        if method == ORIGIN:
            found: dict[str, Any] = {"bleu": self._test(self.model)}
        elif method == BLOCKS:
            found = self._tuned(plan, seed)
        else:
            found = self._finished(plan, method, name, seed)
        self.results.add(row | found)

    def _tuned(self, plan: Plan, seed: int) -> dict[str, Any]:
        store = BlockStore(self.args.runs / f"store_{seed}")
        store.adopt(plan)
        settings = TuningSettings(epochs=BLOCK_EPOCHS, lr=BLOCK_RATE, dropout=True, seed=seed)
        job = TuneJob(str(store.folder), "multi30k:model", "multi30k:data", settings,
                      str(self.args.origin), threads=1)  # fmt: skip
        began = time.process_time()
        tune(job, lambda line: print(line, flush=True))
        seconds = time.process_time() - began
        done = [store.ledger.last("finished", block_id=b.block_id) or {} for b in plan.blocks]
        costs = costs_of(plan, self.model, BLOCK_EPOCHS)
        return {
            "seconds": round(seconds, 1),
            "distinct": len(plan.blocks),
            "requests": plan.reuse["requests"],
            "stage": costs.block_stage / costs.epoch,
            "before": mean(one["before"] for one in done),
            "after": mean(one["after"] for one in done),
        }

    def _finished(self, plan: Plan, method: str, name: str, seed: int) -> dict[str, Any]:
        store = BlockStore(self.args.runs / f"store_{seed}")
        prune_blocks(plan, self.model, store, self.data)
        source = "tuned" if method == COMPOSED else "pruned"
        out = store.folder / f"models_{method}" / name
        job = FinishJob(RECIPE, EPOCHS, RATE, source=source, seed=seed, latency=False)
        self.judge.seconds = 0.0
        began = time.process_time()
        found = finish(store, plan, name, self.model, self.data, job, out)
        seconds = time.process_time() - began - self.judge.seconds
        trained = load_origin("multi30k:model", str(out / "model.safetensors"))
        curve = [round(one["bleu"], 2) for one in found["history"]]
        return {
            "bleu": self._test(trained),
            "curve": curve,
            "seconds": round(seconds, 1),
            "kept": found["kept_params"],
        }

    def _test(self, model: torch.nn.Module) -> float:
        judge = multi30k.Multi30k(judged=TESTED, split="test")
        return round(Lent(judge).evaluate(model)["bleu"], 2)


class Timed(multi30k.Multi30k):
    """Data that know how long judging models has taken."""

    def __init__(self, data: multi30k.Multi30k) -> None:
        self.__dict__.update(data.__dict__)
        self.seconds = 0.0

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        """Return BLEU."""
        began = time.process_time()
        found = super().evaluate(model)
        self.seconds += time.process_time() - began
        return found


def configurations(model: torch.nn.Module) -> list[Configuration]:
    """Return the four configurations."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.MultiheadAttention))
        and not name.endswith(("out_proj", "generator"))
    ]
    return [
        Configuration(title, rates={n: part["encoder" not in n] for n in names})
        for title, part in PARTS.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Return BLEU with and without tuned blocks, and what both cost."""
    seeds = sorted({row["seed"] for row in rows if row["method"] != ORIGIN})
    origin = _mean(rows, "bleu", method=ORIGIN)
    lines = [
        f"BLEU of the origin {_text(origin)}; mean of {len(seeds)} seed{'s' * (len(seeds) != 1)}",
        "",
        "| encoder, decoder keep | weights | pruned | blocks tuned | fine-tuned, without | with |",
        "|---|---|---|---|---|---|",
    ]
    for name, (encoder, decoder) in PARTS.items():
        starts = [
            _mean(rows, lambda r: r["curve"][0], method=m, name=name) for m in (DIRECT, COMPOSED)
        ]
        ends = [_mean(rows, "bleu", method=m, name=name) for m in (DIRECT, COMPOSED)]
        kept = next((r["kept"] for r in rows if r["sparsity"] == name), 0)
        cells = [f"{encoder:g}, {decoder:g}", f"{kept:,}", *map(_text, [*starts, *ends])]
        lines.append(f"| {' | '.join(cells)} |")
    whole = [seed for seed in seeds if _is_whole(rows, seed)]
    if whole:
        lines += ["", *_costs([row for row in rows if row["seed"] in whole])]
    return "\n".join(lines) + "\n"


def _costs(rows: Sequence[Row]) -> list[str]:
    """Return what was measured, beside what the formula says."""
    stage, estimate = (_mean(rows, key, method=BLOCKS) for key in ("seconds", "stage"))
    epoch = _mean(rows, lambda row: row["seconds"] / EPOCHS, method=DIRECT)
    assert stage is not None and epoch is not None and estimate is not None
    needed = [
        epochs_to(composed["curve"], direct["curve"][-1])
        for composed in rows if composed["method"] == COMPOSED
        for direct in rows
        if direct["method"] == DIRECT
        and (direct["sparsity"], direct["seed"]) == (composed["sparsity"], composed["seed"])
    ]  # fmt: skip
    reached = [one for one in needed if one is not None]
    part = f"1/{multi30k.PARTS} of the data"
    count = len(PARTS)
    lines = [
        f"An epoch of a model, here {part}, takes {epoch:.1f} s; tuning all blocks for "
        f"{BLOCK_EPOCHS} of them {stage:.0f} s, as much as {stage / epoch:.1f} epochs "
        f"(estimated {estimate:.1f}). All four models: {count * EPOCHS * epoch:.0f} s without "
        f"blocks, {stage + count * EPOCHS * epoch:.0f} s with them, fine-tuned as long.",
    ]
    if not reached:
        return [*lines, "No composed model was as good as the other in as many epochs."]
    epochs = mean(reached)
    costs = Costs(count, 1.0, 0.0, 0.0, teacher=3.0 * stage / epoch)
    even = costs.break_even(EPOCHS, epochs)
    rest = "" if len(reached) == len(needed) else f" ({len(needed) - len(reached)} never were)"
    total = stage + count * epochs * epoch
    return [
        *lines,
        f"The composed ones were as good as the others at their end after {epochs:.1f} of "
        f"{EPOCHS} epochs{rest}, so that with blocks {total:.0f} s give the same quality: "
        f"{count * EPOCHS * epoch / total:.2f} times as fast for {count} configurations. By the "
        f"formula blocks pay from {even:.1f} configurations of these rates on.",
    ]


def epochs_to(curve: Sequence[float], goal: float) -> float | None:
    """Return after how many epochs a curve reaches a goal, between epochs on a straight line."""
    if curve[0] >= goal:
        return 0.0
    for epoch, (before, after) in enumerate(itertools.pairwise(curve)):
        if after >= goal:
            return epoch + (goal - before) / (after - before)
    return None


def _is_whole(rows: Sequence[Row], seed: int) -> bool:
    found = {(row["method"], row["sparsity"]) for row in rows if row["seed"] == seed}
    wanted = {(m, n) for m in (DIRECT, COMPOSED) for n in PARTS}
    return wanted <= found and (BLOCKS, "") in found


def _mean(
    rows: Sequence[Row],
    value: str | Callable[[Mapping[str, Any]], float],
    method: str,
    name: str | None = None,
) -> float | None:
    fitting = [r for r in rows if r["method"] == method and name in (None, r["sparsity"])]
    found = [r[value] if isinstance(value, str) else value(r) for r in fitting]
    return mean(found) if found else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(run_reported(main))
