"""Prune a small Llama in one shot by magnitude, OBS, CAP and FastCAP, over a grid of dampenings.

    python research/one_shot_causal_study.py --data data

The model is the trained Llama of 260 thousand weights in ``weights/tinystories_llama_260k``, the
text the 196 thousand characters of ``tinystories/sample.txt.gz``: 196 pieces of 512 tokens, without
a token for the beginning. Gradients come from the first 137 pieces, cut into 548 of 128 tokens, one
gradient of each; losses are those of the other 59 pieces. All methods prune the 35 linear layers of
all blocks (226,560 weights), by the same gradients, which are computed once. The dampening of each
method is chosen on every fourth held-out piece at 50%, and the table has the losses on all of them;
what the others of its grid gave is kept beside (``one_shot_causal.json``).

It takes minutes, and goes on where it was stopped. Results go to ``runs``; those of the repository
change only by ``--out research/results/one_shot_causal.json``. The dampenings of the grid are no
advice: the recipes have values.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from study_results import COMMITTED, write_between
from torch import Tensor, nn

from sparseml.pytorch.sparsification.pruning import (
    CAPruningModifier,
    FastCAPruningModifier,
    GlobalMagnitudePruningModifier,
    MagnitudePruningModifier,
    OBSPruningModifier,
)
from sparseml.run import Processes
from sparseml.run.errors import run_reported
from sparseml.transformers import GLUE, TextSession

SPARSITIES = (0.3, 0.5, 0.6)
CHOSEN_AT = 0.5
WINDOW, PART, HELD_OUT = 512, 128, 0.3
BLOCK = 64
_SECOND = {"fisher_block_size": BLOCK}
_ABSOLUTE = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_RELATIVE = (1.0, 1e-1, 1e-2, 1e-3)
METHODS: dict[str, tuple[str, Any, Sequence[float | None]]] = {
    "magnitude": ("magnitude, uniform", MagnitudePruningModifier, (None,)),
    "global_magnitude": ("magnitude, global", GlobalMagnitudePruningModifier, (None,)),
    "obs": ("OBS", partial(OBSPruningModifier, global_sparsity=True, **_SECOND), _ABSOLUTE),
    "fast_cap": ("FastCAP", partial(FastCAPruningModifier, **_SECOND), _RELATIVE),
    "cap": ("CAP", partial(CAPruningModifier, global_sparsity=True, **_SECOND), _ABSOLUTE),
}


def main() -> None:
    """Find all losses, or only show those that are there."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPARSEML_DATA", "data"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/one_shot_causal.json"))
    parser.add_argument("--render", action="store_true", help="write the table of --out anew")
    args = parser.parse_args()
    if not args.render:
        torch.manual_seed(args.seed)
        known = json.loads(args.out.read_text()) if args.out.exists() else {}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for content in Study(args).run(known):
            args.out.write_text(json.dumps(content, indent=1) + "\n")
    text = table(json.loads(args.out.read_text()))
    args.out.with_suffix(".md").write_text(text)
    if args.out.resolve().parent == COMMITTED:
        write_between(COMMITTED.parent / "README.md", "one_shot_causal", text)
    print(text)


class Study:
    """The model, its texts, and the gradients that all methods share."""

    def __init__(self, args: Namespace) -> None:
        model, text = "weights/tinystories_llama_260k", "tinystories/sample.txt.gz"
        flags = ["--model", f"hf:{args.data / model}", "--data", str(args.data / text)]
        flags += ["--window", str(WINDOW), "--held-out", str(HELD_OUT), "--gs-window", str(PART)]
        flags += ["--recipe", "none", "--output", "runs", "--overwrite"]
        session: Any = GLUE.open_session(GLUE.one_shot_settings(flags, None), Processes())
        self.session: TextSession = session
        self.seed = args.seed
        few = replace(session.inputs, validation=session.inputs.validation[::4])
        self.choosing = replace(session, inputs=few)
        self.recorded = Recorded(session.model, session.gradient_data, args.seed, session)

    def run(self, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield all that is known, after each method.

        :param known: what an earlier run has found, whose methods are not run again
        """
        session = self.session
        whole = torch.cat([session.inputs.train, session.inputs.validation])
        on_all = replace(session, inputs=replace(session.inputs, validation=whole))
        settings = {
            "gradients": self.recorded.count,
            "tokens_of_a_gradient": PART,
            "fisher_block_size": BLOCK,
            "held_out": f"the last {session.evaluated_samples} of {len(whole)} pieces",
            "seed": self.seed,
        }
        content = known
        if known.get("settings") != settings:
            content = {
                "settings": settings,
                "dense": session.evaluate(session.model)["loss"],
                "dense_on_the_whole_text": on_all.evaluate(session.model)["loss"],
                "methods": {},
            }
        for name, (_, modifier, dampings) in METHODS.items():
            if name in content["methods"]:
                continue
            tried: list[dict[str, Any]] = []
            best: Any = None
            for damp in dampings:
                began = time.monotonic()
                pruned = self._pruned(modifier, damp)
                seconds = time.monotonic() - began
                loss = self.choosing.evaluate(pruned[CHOSEN_AT])["loss"]
                tried.append({"damp": damp, "loss_on_a_fourth": loss, "seconds": seconds})
                print(name, damp, f"{loss:.3f}", f"{seconds:.1f} s", flush=True)
                if best is None or loss < best[0]:
                    best = (loss, damp, pruned)
            losses = {str(s): session.evaluate(model)["loss"] for s, model in best[2].items()}
            content["methods"][name] = {"damp": best[1], "losses": losses, "tried": tried}
            yield content

    def _pruned(self, modifier: Any, damp: float | None) -> dict[float, nn.Module]:
        recorded = self.recorded
        given = {} if damp is None else {"damp": damp, "num_grads": recorded.count}
        schedule = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
        level = {"init_sparsity": CHOSEN_AT, "final_sparsity": CHOSEN_AT}
        pruner = modifier(params=recorded.names, **level, **schedule, **given)
        found = {}
        for sparsity, outcome in pruner.sweep(recorded, SPARSITIES, grad_sampler=recorded.sampler):
            model = copy.deepcopy(recorded.model)
            for name, (mask, weight) in outcome.items():
                param = model.get_parameter(name.removeprefix("model."))
                param.data.copy_(param * mask if weight is None else weight)
            found[sparsity] = model
        return found


class Recorded(nn.Module):
    """A model whose gradients were computed once: its output has them, at no cost.

    :param pieces: tokens ``[count, length]``, one gradient of each
    """

    def __init__(self, model: nn.Module, pieces: Tensor, seed: int, session: TextSession) -> None:
        super().__init__()
        self.model, self.count = model, len(pieces)
        params = {name: p for name, p in model.named_parameters() if name.endswith("proj.weight")}
        self.names = [f"model.{name}" for name in params]
        self._params = list(params.values())
        order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))
        self._gradients: list[Sequence[Tensor]] = []
        for piece in pieces[order]:
            batch, labels = session.inputs.collate([piece])
            loss = session.inputs.loss(model(**batch), labels)
            self._gradients.append(torch.autograd.grad(loss, self._params))

    @property
    def sampler(self) -> dict[str, Any]:
        """Return what modifiers sample them by, in their order."""
        return {
            "data_loader_builder": lambda: (([number], {}, None) for number in itertools.count()),
            "loss_fn": lambda loss, _: loss,
            "progress_bar": False,
        }

    def forward(self, number: int) -> Tensor:
        """Return a number whose gradient is the recorded one."""
        pairs = zip(self._params, self._gradients[number % self.count], strict=True)
        return torch.stack([(param * grad).sum() for param, grad in pairs]).sum()


def table(content: dict[str, Any]) -> str:
    """Return the losses as Markdown."""
    settings = content["settings"]
    lines = [
        f"Loss on {settings['held_out']} of 512 tokens; dense {content['dense']:.3f} there, "
        f"{content['dense_on_the_whole_text']:.3f} on the whole text.",
        "",
        "| method | best dampening (recipes have their own) | 30% | 50% | 60% |",
        "|---|---|---|---|---|",
    ]
    for name, found in content["methods"].items():
        damp = "-" if found["damp"] is None else f"{found['damp']:.0e}".replace("e-0", "e-")
        cells = [f"{found['losses'][str(sparsity)]:.3f}" for sparsity in SPARSITIES]
        lines.append(" | ".join([f"| {METHODS[name][0]}", damp, *cells]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(run_reported(main))
