"""Train sparse translators on Multi30k: grow-and-prune against gradual pruning, in as many updates.

    python research/translation_study.py --data data/multi30k

A fairseq Transformer of 2 + 2 layers of 128 learns to translate from random weights. All runs see
as many batches, with the same learning rates, and the model of the last epoch is scored: BLEU
(beam 4) on the 1,000 test sentences. Gradual pruning and grow-and-prune prune each matrix of
attention and feed-forward layers to the same sparsity and leave the last epochs for fine-tuning.
The repository has the results (``research/results/translation.md``); ``--again`` finds them anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from study_results import Row, StudyResults, add_flags, settle
from study_tasks import PAGE

from sparseml.run.errors import run_reported

NAME = "translation"
MODEL = "multi30k"
EPOCHS, STEPS = 8, 3
DENSE = "dense"
PRUNABLE = r"(q_proj|k_proj|v_proj|out_proj|fc1|fc2)\.weight$"
PARAMS = rf"['re:.*{PRUNABLE}']"
TRAIN = """
    --cpu --task translation --arch transformer --share-all-embeddings --dropout 0.1
    --encoder-layers 2 --encoder-embed-dim 128 --encoder-ffn-embed-dim 256
    --encoder-attention-heads 4 --decoder-layers 2 --decoder-embed-dim 128
    --decoder-ffn-embed-dim 256 --decoder-attention-heads 4 --optimizer adam
    --adam-betas (0.9,0.98) --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 400
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 2048
    --no-epoch-checkpoints --log-format simple --log-interval 100
"""
GENERATE = """
    --cpu --beam 4 --lenpen 1 --batch-size 128 --remove-bpe sentencepiece --scoring sacrebleu
"""
GRADUAL = """modifiers:
  - !EpochRangeModifier {{start_epoch: 0.0, end_epoch: {epochs}}}
  - !GMPruningModifier
      params: {params}
      init_sparsity: 0.05
      final_sparsity: {sparsity}
      start_epoch: 1.0
      end_epoch: {until}
      update_frequency: 0.25
"""
GAP = """modifiers:
  - !EpochRangeModifier {{start_epoch: 0.0, end_epoch: {epochs}}}
  - !GaPPruningModifier
      params: {params}
      final_sparsity: {sparsity}
      num_partitions: 3
      num_steps: {steps}
      update_frequency: {step}
      {more}
"""


@dataclass(frozen=True)
class Method:
    """A line of the table.

    :param recipe: with places for what the cells differ in
    :param until: the epoch from which on masks are fixed
    :param more: lines of the recipe
    """

    title: str
    recipe: str = GAP
    until: float = 4.0
    more: str = ""

    def text(self, sparsity: float) -> str:
        """Return the recipe for a sparsity."""
        return self.recipe.format(
            epochs=float(EPOCHS),
            params=PARAMS,
            sparsity=sparsity,
            until=self.until,
            step=self.until / STEPS,
            steps=STEPS,
            more=self.more,
        )


METHODS = {
    "gradual": Method("gradual magnitude", GRADUAL),
    "gradual_5": Method("gradual magnitude, one epoch longer", GRADUAL, until=5.0),
    "cyclic": Method("grow-and-prune, cyclic (C-GaP)"),
    "random": Method("grow-and-prune, by lot", more="partition_type: random"),
}
SETTINGS = {
    "epochs": EPOCHS,
    "train": TRAIN.split(),
    "generate": GENERATE.split(),
    "recipes": {name: method.text(0.9) for name, method in METHODS.items()},
}


def main() -> None:
    """Do what is left to do, then show it."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="of binarised sentences, see the README")
    add("--methods", nargs="+", choices=[DENSE, *METHODS], default=[DENSE, *METHODS])
    add("--sparsities", type=float, nargs="+", default=[0.9, 0.8], metavar="SPARSITY")
    add("--seeds", type=int, nargs="+", default=[1, 2], metavar="SEED")
    add_flags(parser, "translation_study")
    args = parser.parse_args()
    settle(args)
    results = StudyResults.of(NAME, args, SETTINGS)
    jobs = [
        (method, sparsity, seed)
        for seed in args.seeds
        for method in args.methods
        for sparsity in ([0.0] if method == DENSE else args.sparsities)
    ]
    left = [job for job in jobs if results.missing(MODEL, job[0], job[2], [job[1]])]
    if not args.render:
        results.tell(len(jobs), len(left))
        if left and (args.data is None or not (args.data / "dict.en.txt").exists()):
            raise SystemExit(f"--data must be a folder that has dict.en.txt, found {args.data}")
        for job in left:
            run(args, results, *job)
    render(results)


def run(args: Namespace, results: StudyResults, method: str, sparsity: float, seed: int) -> None:
    """Train, translate the test sentences, and keep what was found."""
    print(f"{method} at {sparsity:g}, seed {seed}", flush=True)
    folder = args.runs / f"{method}_{sparsity:g}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    plugin = user_dir()
    command = ["fairseq-train", str(args.data.absolute()), *plugin, *TRAIN.split()]
    command += ["--seed", str(seed), "--max-epoch", str(EPOCHS), "--save-dir", str(folder)]
    if method != DENSE:
        recipe = folder / "recipe.yaml"
        recipe.write_text(METHODS[method].text(sparsity))
        command += ["--sparseml-recipe", str(recipe)]
    call(command, folder / "train.log")
    weights = folder / "checkpoint_last.pt"
    row = {"model": MODEL, "method": method, "seed": seed, "sparsity": sparsity}
    results.add(row | _found(args, plugin, weights, folder))


def _found(args: Namespace, plugin: Sequence[str], weights: Path, folder: Path) -> dict[str, Any]:
    """Return BLEU with its bootstrapped error, and the share of zeros in what is pruned."""
    command = ["fairseq-generate", str(args.data.absolute()), *plugin, "--path", str(weights)]
    log = folder / "test.log"
    call([*command, *GENERATE.split()], log)
    with torch.serialization.safe_globals([Namespace]):  # fairseq keeps its arguments so
        state = torch.load(weights, map_location="cpu", weights_only=True)["model"]
    pruned = [value for name, value in state.items() if re.search(PRUNABLE, name)]
    zeros = sum(int((value == 0).sum()) for value in pruned)
    ratio = round(zeros / sum(value.numel() for value in pruned), 4)
    return {**score(log), "ratio": ratio}


def score(log: Path) -> dict[str, float]:
    """Return BLEU with its bootstrapped error, of what ``fairseq-generate`` has written."""
    text = log.read_text(encoding="utf-8")
    hypotheses, references = (
        dict(re.findall(pattern, text, re.MULTILINE))
        for pattern in (r"^D-(\d+)\t\S+\t(.*)$", r"^T-(\d+)\t(.*)$")
    )
    from sacrebleu.metrics import BLEU

    order = sorted(references, key=int)
    found = BLEU().corpus_score(
        [hypotheses[number] for number in order],
        [[references[number] for number in order]],
        n_bootstrap=1000,
    )
    return {"bleu": round(found.score, 2), "error": round(found._ci, 2)}


def user_dir() -> list[str]:
    """Return the flag of fairseq's commands for our plugin."""
    command = [sys.executable, "-m", "sparseml.fairseq"]
    return ["--user-dir", subprocess.check_output(command, text=True).strip()]


def call(command: Sequence[str], log: Path) -> None:
    """Run a command that writes into a file, and end with it if it fails."""
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if status.returncode:
        raise SystemExit(f"{command[0]} has failed, see {log}")


def render(results: StudyResults) -> None:
    """Write the table; that of the repository also into the page of the studies."""
    if rows := results.rows():
        results.publish(table(rows), PAGE)


def table(rows: Sequence[Row]) -> str:
    """Return BLEU by method and sparsity."""
    dense = _values(rows, DENSE, 0.0)
    error = mean(row["error"] for row in rows)
    lines = [
        f"BLEU of the dense model {_shown(dense)}; 95 % interval of 1000 sentences ± {error:.1f}",
        "",
        "| method | 80% | 90% |",
        "|---|---|---|",
    ]
    for name, method in METHODS.items():
        cells = [_shown(_values(rows, name, sparsity)) for sparsity in (0.8, 0.9)]
        lines.append(f"| {method.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _values(rows: Sequence[Row], method: str, sparsity: float) -> list[float]:
    return [row["bleu"] for row in rows if (row["method"], row["sparsity"]) == (method, sparsity)]


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread} ({len(values)})"


if __name__ == "__main__":
    sys.exit(run_reported(main))
