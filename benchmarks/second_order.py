"""Second-order pruning against the plain published formulation, on the same inputs, in one run.

    python benchmarks/second_order.py                 # the table, in some minutes
    python benchmarks/second_order.py --clock cpu     # on a busy machine: one thread, its own time
    python benchmarks/second_order.py --model         # and a step on DeiT-Tiny's Linear layers
    python benchmarks/second_order.py --device cuda

The published formulation (WoodFisher, oBERT, CAP) keeps the inverse of every block and changes it
by one rank-one term per gradient, and again by one per eliminated weight. It is restated below in
batched torch: as published, the product is formed and then subtracted; ``fused`` is the kindest
reading of it, one multiply-add kernel in place. All take turns; of the baselines, some steps are
timed, all of which cost the same, and scaled. Medians over the rounds count. Results go to
``benchmarks/results/second_order.json``.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _timing import CLOCKS, environment, medians, ratios, take_turns, write_result
from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.elimination import eliminate, eliminate_cheapest
from sparseml.pytorch.functional.second_order.fisher import BlockFisher
from sparseml.pytorch.functional.second_order.mfac import FisherInverseFast
from sparseml.pytorch.functional.second_order.obs import joint_update, kernels_for
from sparseml.pytorch.functional.selection import joined, lowest_mask, split_like

BLOCK, BLOCKS, GRADS, DAMP = 192, 576, 1024, 1e-4
STEPS = 8  # of a baseline, per round
DEIT_TINY = [(576, 192), (192, 192), (768, 192), (192, 768)] * 12


class Bench:
    """Where and how to time."""

    def __init__(self, device: torch.device, clock: str, rounds: int) -> None:
        self.device, self.clock, self.rounds = device, clock, rounds

    def _synchronised(self, work: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return run

    def seconds(self, work: Callable[[], object], rounds: int | None = None) -> float:
        """The median of several runs."""
        turns = {"it": self._synchronised(work)}
        return medians(take_turns(turns, rounds or self.rounds, 0, self.clock))["it"]

    def compare(
        self,
        name: str,
        ours: Callable[[], object],
        baselines: dict[str, Callable[[], object]],
        scale: float = 1.0,
    ) -> dict[str, Any]:
        """One row of the table, printed as it is known.

        :param scale: how much longer a whole baseline is than what its function does
        """
        turns = {"ours": ours, **baselines}
        turns = {key: self._synchronised(work) for key, work in turns.items()}
        taken = take_turns(turns, self.rounds, 1, self.clock)
        times, against = medians(taken), ratios(taken, "ours")
        row: dict[str, Any] = {"name": name, "seconds": times["ours"]}
        text = f"{name:42s} {times['ours']:8.3f} s"
        for key in baselines:
            low, middle, high = (scale * ratio for ratio in against[key])
            row[key] = {"seconds": times[key] * scale, "ratio": middle, "quartiles": [low, high]}
            text += f"   {key} {times[key] * scale:8.2f} s {middle:7.1f} x ({low:.0f}-{high:.0f})"
        print(text, flush=True)
        return row


def gradients(count: int, blocks: int, device: torch.device) -> Tensor:
    """Correlated, of unequal scale, ``[count, blocks * BLOCK]``."""
    generator = torch.Generator(device).manual_seed(0)
    grads = torch.randn(count, blocks * BLOCK, generator=generator, device=device)
    grads += 0.5 * grads.roll(1, dims=1)
    scale = torch.randn(blocks * BLOCK, generator=generator, device=device).exp()
    return grads.mul_(scale * 0.05)


# The published formulation --------------------------------------------------------------------


def rank_one_term(inverse: Tensor, grad: Tensor, count: int, fused: bool) -> None:
    """``H -= (H g)(H g)^T / (N + g^T H g)`` in every block: ``[R, B, B]``, ``[R, B]``."""
    v = torch.bmm(inverse, grad.unsqueeze(2))
    v = v / (count + torch.bmm(grad.unsqueeze(1), v)).sqrt()
    if fused:
        inverse.baddbmm_(v, v.mT, alpha=-1)
    else:
        inverse -= v * v.mT


def downdate_step(state: tuple[Tensor, Tensor, Tensor], fused: bool) -> None:
    """Eliminate one weight of every block: inverse, weights, which are gone."""
    inverse, weights, gone = state
    row = torch.arange(len(weights), device=weights.device)
    scores = weights**2 / inverse.diagonal(dim1=1, dim2=2)
    chosen = torch.where(gone, torch.inf, scores).argmin(1)
    pivot_row = inverse[row, chosen]
    pivot = pivot_row[row, chosen].unsqueeze(1)
    weights -= pivot_row * (weights[row, chosen].unsqueeze(1) / pivot)
    gone[row, chosen] = True
    weights[gone] = 0.0
    h = (pivot_row / pivot.sqrt()).unsqueeze(2)
    if fused:
        inverse.baddbmm_(h, h.mT, alpha=-1)
    else:
        inverse -= h * h.mT


def mfac_recursion(grads: Tensor, damp: float) -> Tensor:
    """The diagonal of the M-FAC inverse by its published recursion, ``[N, D]`` to ``[D]``."""
    count = len(grads)
    rows, scales = torch.empty_like(grads), grads.new_empty(count)
    for i, g in enumerate(grads):
        h = g / damp
        if i:
            h = h - ((rows[:i] @ g) / scales[:i]) @ rows[:i]
        rows[i], scales[i] = h, count + g @ h
    return 1 / damp - (rows**2 / scales.unsqueeze(1)).sum(0)


# Comparisons --------------------------------------------------------------------------------------


def empty_fisher(grads: Tensor) -> BlockFisher:
    """With its memory at hand, as that of the published inverse is: touched before it is timed."""
    fisher = BlockFisher(block_layout(grads.shape[1:], BLOCK), device=grads.device)
    fisher.blocks.fill_(0.0)
    return fisher


def factored(grads: Tensor, fisher: BlockFisher | None = None) -> Any:
    """Fisher matrix from all gradients, and its inverse."""
    fisher = fisher or empty_fisher(grads)
    for grad in grads:
        fisher.accumulate(grad)
    return fisher.factor(DAMP)


def cheapest(inverses: list[Any], weights: list[Tensor], steps: int) -> list[Tensor]:
    """What goes of each weight, ranked together, as a pruner chooses it."""
    found = eliminate_cheapest(inverses, weights, steps)
    scores = [i.whole(one.scores()) for i, one in zip(inverses, found, strict=True)]
    return [~keep for keep in split_like(lowest_mask(joined(scores), steps), scores)]


def fisher_row(bench: Bench) -> dict[str, Any]:
    """Fisher matrix and inverse; checked against the recursion in some blocks."""
    grads = gradients(GRADS, BLOCKS, bench.device)
    ready = iter([empty_fisher(grads) for _ in range(bench.rounds + 1)])

    def published(fused: bool) -> Callable[[], object]:
        inverse = torch.eye(BLOCK, device=bench.device).repeat(BLOCKS, 1, 1) / DAMP
        terms = iter(grads.view(GRADS, BLOCKS, BLOCK))

        def work() -> None:
            for _ in range(STEPS):
                rank_one_term(inverse, next(terms), GRADS, fused)

        return work

    row = bench.compare(
        f"Fisher and inverse, N={GRADS}",
        lambda: factored(grads, next(ready)),
        {"published": published(False), "fused": published(True)},
        GRADS / STEPS,
    )
    few = grads[:, : 4 * BLOCK].double().view(GRADS, 4, BLOCK)
    inverse = torch.eye(BLOCK, dtype=torch.float64, device=bench.device).repeat(4, 1, 1) / DAMP
    for grad in few:
        rank_one_term(inverse, grad, GRADS, True)
    diagonal = factored(grads[:, : 4 * BLOCK]).diag().view(4, BLOCK)
    error = (diagonal / inverse.diagonal(dim1=1, dim2=2) - 1).abs().max()
    return row | {"largest_relative_error_of_diagonal": float(error)}


def elimination_rows(bench: Bench) -> list[dict[str, Any]]:
    """Order and losses of all blocks, to full and to half depth; then the weights at half."""
    device = bench.device
    inverse = factored(gradients(GRADS, BLOCKS, device))
    generator = torch.Generator(device).manual_seed(1)
    weights = torch.randn(BLOCKS, BLOCK, generator=generator, device=device)
    blocks = (weights, inverse.inverse, inverse.live)

    def ours(depth: int, backend: str = "auto") -> Callable[[], object]:
        return lambda: eliminate(*blocks, depth=depth, floor=inverse.floor, backend=backend)

    def published(fused: bool) -> Callable[[], object]:
        def work() -> None:
            for _ in range(STEPS):
                downdate_step(state, fused)

        state = (inverse.inverse.clone(), weights.clone(), torch.zeros_like(inverse.live))
        return work

    rows = []
    settings = [("full", BLOCK, "auto"), ("half", BLOCK // 2, "auto")]
    if device.type == "cpu":
        settings += [("full", BLOCK, "torch")]
    for name, depth, backend in settings:
        title = f"elimination to {name} depth" + (", without numba" if backend == "torch" else "")
        baselines = {"published": published(False), "fused": published(True)}
        rows.append(bench.compare(title, ours(depth, backend), baselines, depth / STEPS))
    found = eliminate(*blocks, floor=inverse.floor)
    pruned = torch.zeros_like(inverse.live).scatter_(1, found.order[:, : BLOCK // 2].long(), True)
    update = bench.seconds(lambda: joint_update(weights, inverse.inverse, pruned))
    print(f"{'joint update at half depth':42s} {update:8.3f} s", flush=True)
    return [*rows, {"name": "joint update at half depth", "seconds": update}]


def mfac_row(bench: Bench) -> dict[str, Any]:
    """The diagonal from 512 gradients of 32,768 weights, one block."""
    generator = torch.Generator(bench.device).manual_seed(0)
    grads = torch.randn(512, 32768, generator=generator, device=bench.device) * 0.05
    return bench.compare(
        "M-FAC diagonal, D=32768, N=512",
        lambda: FisherInverseFast(grads.clone(), DAMP),
        {"published": lambda: mfac_recursion(grads, DAMP)},
    )


def linearity(bench: Bench) -> dict[str, list[dict[str, float]]]:
    """Seconds of a whole step by number of weights and by number of gradients.

    On the CPU they are processor seconds, so that other work on the machine bends no line.
    """
    bench = Bench(bench.device, "cpu" if bench.device.type == "cpu" else "wall", bench.rounds)

    def step(blocks: int, count: int) -> float:
        grads = gradients(count, blocks, bench.device)
        weight = torch.randn(blocks * BLOCK, device=bench.device)
        ready = iter([empty_fisher(grads) for _ in range(bench.rounds)])

        def work() -> None:
            inverse = factored(grads, next(ready))
            (pruned,) = cheapest([inverse], [weight], weight.numel() // 2)
            inverse.update(weight, pruned)

        return bench.seconds(work)

    by_weights = [{"d": r * BLOCK, "seconds": step(r, 512)} for r in (96, 192, 384, 768)]
    by_grads = [{"N": n, "seconds": step(192, n)} for n in (256, 512, 1024, 2048)]
    for row in [*by_weights, *by_grads]:
        print(f"whole step, {'  '.join(f'{k} {v:.4g}' for k, v in row.items())}", flush=True)
    return {"by_weights": by_weights, "by_gradients": by_grads}


def _memory_of_a_step(blocks: int, count: int, pipe: Any) -> None:
    """In a process of its own: the growth of its largest memory use over a step, in bytes."""
    weight = torch.randn(blocks * BLOCK)
    grad = torch.randn(blocks * BLOCK)
    # what is loaded or compiled once is not the step's
    warm = factored(torch.randn(8, BLOCK))
    warm.update(weight[:BLOCK], cheapest([warm], [weight[:BLOCK]], 9)[0])
    before = _largest_memory()
    fisher = BlockFisher(block_layout(weight.shape, BLOCK))
    for _ in range(count):
        fisher.accumulate(grad.normal_())
    inverse = fisher.factor(DAMP)
    (pruned,) = cheapest([inverse], [weight], weight.numel() // 2)
    inverse.update(weight, pruned)
    pipe.send(_largest_memory() - before)


def _largest_memory() -> int:
    """The largest resident memory of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def memory() -> dict[str, float]:
    """Peak extra memory of a step, against d * B * 4 bytes."""
    blocks = 8 * BLOCKS
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_memory_of_a_step, args=(blocks, 100, sender))
    process.start()
    peak = receiver.recv()
    process.join()
    fisher = blocks * BLOCK * BLOCK * 4
    print(f"peak extra memory {peak / 1e6:.0f} MB = {peak / fisher:.2f} x d B 4 bytes", flush=True)
    return {"bytes": peak, "fisher_bytes": fisher, "ratio": peak / fisher}


def model(bench: Bench, count: int = 512) -> dict[str, Any]:
    """Everything after the gradients for DeiT-Tiny's Linear layers at 50%, ranked globally."""
    device = bench.device
    weights = [torch.randn(shape, device=device) * 0.02 for shape in DEIT_TINY]
    fishers = [BlockFisher(block_layout(w.shape, BLOCK), device=device) for w in weights]
    pool = [[torch.randn_like(w) * 1e-3 for w in weights] for _ in range(8)]
    inverses: list[Any] = []
    chosen: list[Tensor] = []
    total = sum(w.numel() for w in weights)

    def accumulate() -> None:
        for t in range(count):
            for fisher, grad in zip(fishers, pool[t % len(pool)], strict=True):
                fisher.accumulate(grad)

    def update() -> None:
        for inverse, weight, pruned in zip(inverses, weights, chosen, strict=True):
            inverse.update(weight, pruned)

    phases = {
        "accumulate": accumulate,
        "factor": lambda: inverses.extend(f.factor(1e-8) for f in fishers),
        "eliminate": lambda: chosen.extend(cheapest(inverses, weights, total // 2)),
        "update": update,
    }
    taken = {name: bench.seconds(work, 1) for name, work in phases.items()}
    taken["total"] = sum(taken.values())
    print(f"DeiT-Tiny, {total:,} weights, N={count}:", flush=True)
    print("   " + "  ".join(f"{name} {value:.2f} s" for name, value in taken.items()), flush=True)
    return {"weights": total, "gradients": count, "seconds": taken}


def rates(bench: Bench) -> dict[str, Any]:
    """The rates that bound the numbers, and which kernels were chosen."""
    square = torch.randn(2048, 2048, device=bench.device)
    source = torch.randn(1 << 26, device=bench.device)
    target = torch.empty_like(source)
    cuda = bench.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(bench.device) if cuda else "cpu",
        "kernels": kernels_for(bench.device).__name__.rsplit(".", 1)[-1],
        "matmul_flops_per_second": 2 * 2048**3 / bench.seconds(lambda: square @ square),
        "copy_bytes_per_second": 8 * source.numel() / bench.seconds(lambda: target.copy_(source)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", action="store_true", help="a step on DeiT-Tiny (6 GB)")
    parser.add_argument("--name", default="second_order", help="of the file in results/")
    options = parser.parse_args()
    if options.clock == "cpu":
        torch.set_num_threads(1)
    bench = Bench(torch.device(options.device), options.clock, options.rounds)
    bounds = rates(bench)
    print(f"d = {BLOCKS * BLOCK:,}, B = {BLOCK}; {bounds}; {environment()}", flush=True)
    fisher = fisher_row(bench)
    flops = 2 * BLOCKS * BLOCK * BLOCK * GRADS / fisher["seconds"]
    fisher["fraction_of_matmul_rate"] = flops / bounds["matmul_flops_per_second"]
    results: dict[str, Any] = {
        "sizes": {"d": BLOCKS * BLOCK, "block_size": BLOCK, "gradients": GRADS},
        "clock": options.clock,
        "rates": bounds,
        "comparisons": [fisher, *elimination_rows(bench), mfac_row(bench)],
        "linearity": linearity(bench),
    }
    if bench.device.type == "cpu":
        results["memory"] = memory()
    if options.model:
        results["deit_tiny"] = model(bench)
    write_result(options.name, results)


if __name__ == "__main__":
    main()
