"""FastCAP and CAP beside SparseGPT on a small trained Llama: losses and times, in one run.

    python benchmarks/fast_cap.py                      # the table, in some minutes
    PYTHONPATH=folder python benchmarks/fast_cap.py    # with llm-compressor: pip install --target

The model is ``tinystories_llama_260k``, the text cut into pieces of 512 tokens: the first 137 are
what all methods may look at, losses are those of the other 59. All prune the 35 linear layers of
all blocks, in one shot. ``SparseGPT`` is written here from the paper (Frantar & Alistarh, 2023,
algorithm 1): layer after layer, inputs through what is pruned already, 128 columns at a time, 1 %
of the mean diagonal as dampening; 2:4 masks are chosen four columns at a time. ``llm-compressor``
is that project's own SparseGPT with its defaults, where it can be imported. Seconds are those of
the processor (the machine may be busy) on one thread, of everything but loading; gradients are
computed once, kept in a file, and their time is added where they are used. Results go to
``benchmarks/results/fast_cap.json``; methods that are there already are not run again.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import itertools
import json
import os
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from _timing import RESULTS, environment, write_result
from sparseml.pytorch.sparsification.pruning import (
    CAPruningModifier,
    FastCAPruningModifier,
    MagnitudePruningModifier,
)

DATA = Path(os.environ.get("SPARSEML_DATA", Path(__file__).parents[2] / "shared" / "data"))
WINDOW, PART, CALIBRATION = 512, 128, 137
BLOCKS, PANEL, DAMP = 5, 128, 0.01
MASKS = ("unstructured", "2:4")
GRADS = CALIBRATION * WINDOW // PART

_INPUTS = {"num_grads": CALIBRATION, "damp": DAMP}
_BY_INPUTS = {**_INPUTS, "fisher": "inputs"}
_BEST = {"ranking": "elimination", "weight_update": "joint"}
_CAP = {
    "num_grads": GRADS,
    "fisher_block_size": 64,
    "global_sparsity": True,
}
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "magnitude": (MagnitudePruningModifier, {}),
    "FastCAP, gradients": (
        FastCAPruningModifier,
        {**_CAP, "damp": 1e-3, "global_sparsity": False},
    ),
    "FastCAP, inputs": (FastCAPruningModifier, _BY_INPUTS),
    "FastCAP, inputs, largest diagonal first": (
        FastCAPruningModifier,
        {**_BY_INPUTS, "order": "diagonal"},
    ),
    "FastCAP, inputs, largest loss first": (
        FastCAPruningModifier,
        {**_BY_INPUTS, "order": "loss"},
    ),
    "FastCAP, inputs, joint": (FastCAPruningModifier, {**_BY_INPUTS, "weight_update": "joint"}),
    "FastCAP, inputs, elimination, joint": (FastCAPruningModifier, {**_BY_INPUTS, **_BEST}),
    "FastCAP, both, elimination, joint, global": (
        FastCAPruningModifier,
        {"num_grads": GRADS, "damp": DAMP, **_BEST, "fisher": "both", "global_sparsity": True},
    ),
    "CAP, damp 1e-5": (CAPruningModifier, {**_CAP, "damp": 1e-5}),
    "CAP, damp 1e-8": (CAPruningModifier, {**_CAP, "damp": 1e-8}),
    "CAP, damp 1e-8, input_prior 1": (
        CAPruningModifier,
        {**_CAP, "damp": 1e-8, "input_prior": 1.0},
    ),
    "CAP, damp 1e-8, input_prior 3": (
        CAPruningModifier,
        {**_CAP, "damp": 1e-8, "input_prior": 3.0},
    ),
    "CAP, rows, input_prior 3": (
        CAPruningModifier,
        {**_CAP, "damp": 1e-8, "input_prior": 3.0, "fisher_block_layout": "row",
         "fisher_block_size": 192},
    ),
}  # fmt: skip


def main() -> None:
    """Prune by all methods and write down what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", help="methods, by their names")
    parser.add_argument("--again", action="store_true", help="forget the results there are")
    parser.add_argument("--gradients", type=Path, default=Path("runs/fast_cap_gradients.pt"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, train, test = load()
    file = RESULTS / "fast_cap.json"
    content: dict[str, Any] = {"environment": environment(), "rows": []}
    if file.exists() and not args.again:
        content = json.loads(file.read_text())
    rows = content["rows"] or [{"name": "dense", "loss": loss_of(model, test)}]
    known = {(row["name"], row.get("mask_type")) for row in rows}
    recorded = Recorded(model, train, args.gradients)
    for mask_type, (name, way) in itertools.product(MASKS, ways(model, train, recorded).items()):
        asked = args.only is None or name in args.only
        # where all groups lose two, there is nothing to rank
        if not asked or (name, mask_type) in known or (mask_type == "2:4" and "global" in name):
            continue
        began = time.process_time()
        pruned = way(mask_type)
        seconds = time.process_time() - began
        if METHODS.get(name, (None, {}))[1].get("num_grads") == GRADS:
            seconds += recorded.seconds
        found = {"loss": loss_of(pruned, test), "zeros": sparsity(pruned), "seconds": seconds}
        rows.append({"name": name, "mask_type": mask_type, **found})
        print(f"{mask_type:13s} {name:45s} {found['loss']:.3f} {seconds:7.1f} s", flush=True)
        write_result("fast_cap", {**content, "rows": rows})


def ways(
    model: nn.Module, train: Tensor, recorded: Recorded
) -> dict[str, Callable[[str], nn.Module]]:
    """Return what prunes a copy of the model with a mask type, by name."""
    found: dict[str, Callable[[str], nn.Module]] = {"SparseGPT": partial(sparse_gpt, model, train)}
    if find_spec("llmcompressor"):
        found["llm-compressor"] = partial(llm_compressor, model, train)
    for name, (modifier, fields) in METHODS.items():
        found[name] = partial(recorded.prune, modifier, fields)
    return found


def load() -> tuple[nn.Module, Tensor, Tensor]:
    """Return the model, and pieces of the text to look at and to judge by."""
    folder = str(DATA / "weights" / "tinystories_llama_260k")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with gzip.open(DATA / "tinystories" / "sample.txt.gz", "rt", encoding="utf-8") as file:
        tokens = tokenizer(file.read(), add_special_tokens=False)["input_ids"]
    count = len(tokens) // WINDOW
    pieces = torch.tensor(tokens[: count * WINDOW]).view(count, WINDOW)
    return model, pieces[:CALIBRATION], pieces[CALIBRATION:]


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of all blocks, by name."""
    layers = model.named_modules()
    return {n: one for n, one in layers if isinstance(one, nn.Linear) and "layers." in n}


def sparsity(model: nn.Module) -> float:
    """The fraction of zeros in them."""
    weights = [layer.weight for layer in linear_layers(model).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@torch.inference_mode()
def loss_of(model: nn.Module, pieces: Tensor) -> float:
    """The mean loss of a token."""
    losses = []
    for part in pieces.split(8):
        logits = model(part).logits[:, :-1].flatten(0, 1)
        losses.append(cross_entropy(logits, part[:, 1:].flatten(), reduction="none"))
    return float(torch.cat(losses).mean())


class Recorded(nn.Module):
    """A model whose gradients were computed once, as many methods take the same.

    :param pieces: what it may look at, ``[count, length]``; one gradient of each part of 128
    :param file: where gradients are kept, with the seconds that they took
    """

    def __init__(self, model: nn.Module, pieces: Tensor, file: Path) -> None:
        super().__init__()
        self.model, self.whole = model, False
        self.names = [f"model.{name}.weight" for name in linear_layers(model)]
        weights = [layer.weight for layer in linear_layers(model).values()]
        order = torch.randperm(GRADS, generator=torch.Generator().manual_seed(0))
        self._whole, self._parts = pieces, pieces.reshape(-1, PART)[order]
        if not file.exists():
            began, found = time.process_time(), []
            for piece in self._parts:
                loss = cross_entropy(model(piece.unsqueeze(0)).logits[0, :-1], piece[1:])
                found.append(torch.autograd.grad(loss, weights))
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save((time.process_time() - began, found), file)
        self.seconds, self._gradients = torch.load(file)

    def forward(self, number: int) -> Tensor:
        """Return what has the recorded gradient; without gradients, only look at the piece."""
        if not torch.is_grad_enabled():
            pieces = self._whole if self.whole else self._parts
            self.model(pieces[number % len(pieces)].unsqueeze(0))
            return torch.zeros(())
        weights = [layer.weight for layer in linear_layers(self.model).values()]
        pairs = zip(weights, self._gradients[number % GRADS], strict=True)
        return torch.stack([(weight * grad).sum() for weight, grad in pairs]).sum()

    def prune(self, modifier: Any, fields: dict[str, Any], mask_type: str) -> nn.Module:
        """Return a copy of the model, pruned in one shot by a modifier of ours."""
        schedule = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
        level = {"init_sparsity": 0.5, "final_sparsity": 0.5}
        sampler = {
            "data_loader_builder": lambda: (([number], {}, None) for number in itertools.count()),
            "loss_fn": lambda output, _: output,
            "progress_bar": False,
        }
        fields = {**level, **schedule, **fields, "mask_type": mask_type}
        pruner = modifier(params=self.names, **fields)
        self.whole = fields.get("fisher") == "inputs"
        outcome = pruner.outcome(self, grad_sampler=sampler)
        pruned = copy.deepcopy(self.model)
        for name, (mask, weight) in outcome.items():
            param = pruned.get_parameter(name.removeprefix("model."))
            param.data.copy_(param * mask if weight is None else weight)
        return pruned


# SparseGPT, from the paper -----------------------------------------------------------------------


@torch.no_grad()
def sparse_gpt(dense: nn.Module, train: Tensor, mask_type: str) -> nn.Module:
    """Prune block after block, by inputs that have come through the pruned blocks before it."""
    model = copy.deepcopy(dense)
    for block in range(BLOCKS):
        layers = linear_layers(model)
        own = {name: one for name, one in layers.items() if f"layers.{block}." in name}
        sums = {name: torch.zeros(one.in_features, one.in_features) for name, one in own.items()}
        hooks = []
        for name, layer in own.items():

            def add(_: nn.Module, args: Any, total: Tensor = sums[name]) -> None:
                rows = args[0].flatten(0, -2)
                total.addmm_(rows.T, rows)

            hooks.append(layer.register_forward_pre_hook(add))
        for part in train.split(8):
            model(part)
        for hook in hooks:
            hook.remove()
        for name, layer in own.items():
            layer.weight.copy_(sparse_gpt_rows(layer.weight.data, sums[name], mask_type))
    return model


def sparse_gpt_rows(weight: Tensor, products: Tensor, mask_type: str) -> Tensor:
    """Return the pruned weight ``[out, in]``, by ``X X^T`` of its inputs."""
    damped = products.double()
    damped.diagonal().add_(DAMP * damped.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    work, diagonal = weight.clone(), upper.diagonal()
    for start in range(0, work.shape[1], PANEL):
        stop = min(start + PANEL, work.shape[1])
        costs = (work[:, start:stop] / diagonal[start:stop]) ** 2
        gone = costs <= costs.flatten().kthvalue(costs.numel() // 2).values
        errors = torch.zeros_like(costs)
        for i in range(start, stop):
            if mask_type == "2:4" and i % 4 == 0:
                four = (work[:, i : i + 4] / diagonal[i : i + 4]) ** 2
                least = four.topk(2, dim=1, largest=False).indices
                gone[:, i - start : i - start + 4] = False
                gone[:, i - start : i - start + 4].scatter_(1, least, True)
            lost = torch.where(gone[:, i - start], work[:, i], 0.0)
            errors[:, i - start] = lost / diagonal[i]
            work[:, i:stop] -= errors[:, i - start].unsqueeze(1) * upper[i, i:stop]
            work[:, i] = torch.where(gone[:, i - start], 0.0, work[:, i])
        work[:, stop:] -= errors @ upper[start:stop, stop:]
    return work


def llm_compressor(dense: nn.Module, train: Tensor, mask_type: str) -> nn.Module:
    """Prune by the SparseGPT of llm-compressor."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier

    model = copy.deepcopy(dense)
    pieces = Dataset.from_dict(
        {"input_ids": train.tolist(), "attention_mask": torch.ones_like(train).tolist()}
    )
    structure = "0:0" if mask_type == "unstructured" else mask_type
    modifier = SparseGPTModifier(
        sparsity=0.5, mask_structure=structure, targets=["Linear"], ignore=["re:.*lm_head"]
    )
    oneshot(
        model=model,
        dataset=pieces,
        recipe=[modifier],
        max_seq_length=WINDOW,
        num_calibration_samples=len(train),
        shuffle_calibration_samples=False,
    )
    return model


if __name__ == "__main__":
    main()
