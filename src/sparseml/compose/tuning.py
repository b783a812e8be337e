"""Tuning the blocks of a plan: in groups that fit the memory, by one process or several."""

from __future__ import annotations

import heapq
import itertools
import multiprocessing
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from sparseml.compose.asking import Asking
from sparseml.compose.origin import Lent, load_data, load_origin
from sparseml.compose.planning import configurations_of, costs_of, make_plan, told_costs
from sparseml.pytorch.sparsification.composing.blocks import Block, DigestError, Plan
from sparseml.pytorch.sparsification.composing.store import PRUNED, BlockStore
from sparseml.pytorch.sparsification.composing.student import (
    MEMORY_OF_WEIGHT,
    Student,
    TuningSettings,
    tune_id,
    tuning_id,
)
from sparseml.pytorch.sparsification.composing.teaching import Teaching, find_layouts
from sparseml.run.errors import RunError, one_line, run_reported

Layouts = Mapping[str, str | None]
_WAIT = 0.2


@dataclass(frozen=True)
class TuneJob:
    """What ``sparseml compose tune`` is asked for.

    :param store: its folder, which has a plan
    :param model: reference of the origin, and the file of its weights
    :param data: reference of the data
    :param blocks: ids of those to tune; None for all
    :param max_memory: bytes that the blocks of a group may take; None for no bound
    :param devices: what workers run on, in turn
    :param threads: of each worker; results are the same bit by bit only with the same number
    :param resume: go on with blocks that were begun, instead of beginning them anew
    """

    store: str
    model: str
    data: str
    settings: TuningSettings
    weights: str | None = None
    batch_size: int | None = None
    blocks: tuple[str, ...] | None = None
    max_memory: int | None = None
    devices: tuple[str, ...] = ("cpu",)
    workers: int = 1
    threads: int | None = None
    resume: bool = False


@dataclass
class Bench:
    """What a worker works with.

    :param layouts: module → the mask that its output has
    """

    store: BlockStore
    model: nn.Module
    data: Lent
    settings: TuningSettings
    tuning: str
    layouts: Layouts = field(default_factory=dict)
    worker: str = "0"

    def key(self, block: Block) -> str:
        """Return the id of a block as it is tuned here."""
        return tune_id(block, self.tuning)

    def missing(self, blocks: Sequence[Block]) -> list[Block]:
        """Return the blocks that are not finished."""
        return [block for block in blocks if not self.store.finished(self.key(block))]

    def tune(self, group: Sequence[Block]) -> int:
        """Tune the blocks of a group that nobody else is at work on; return how many."""
        claims = self.store.claims
        taken = [b for b in self.missing(group) if claims.take(self.key(b), self.worker)]
        keys = [self.key(block) for block in taken]
        mine = self.missing(taken)  # another may have handed it in meanwhile
        try:
            with claims.beating(keys):
                students = [self._student(block) for block in mine]
                learn(self.model, self.data, students, self.layouts, self._after_epoch)
        except BaseException as error:
            for block in mine:
                self._note("failed", block, error=one_line(error))
            raise
        finally:
            for key in keys:
                claims.release(key)
        return len(mine)

    def _student(self, block: Block) -> Student:
        self._note("claimed", block)
        pruned = self.store.read(PRUNED, block.block_id, block)
        student = Student(block, self.model, *pruned, self.settings)
        state = self.store.state_path(self.key(block))
        if state.exists():
            student.load(state)
        self._note("started", block, epoch=student.epoch)
        return student

    def _after_epoch(self, student: Student) -> None:
        block, state = student.block, self.store.state_path(self.key(student.block))
        if student.done:
            self.store.finish(student, self.key(block), self.tuning, self.worker)
            shutil.rmtree(state.parent, ignore_errors=True)
            return
        student.save(state)
        self._note("step", block, epoch=student.epoch, loss=student.losses[-1])

    def _note(self, event: str, block: Block, **entries: object) -> None:
        told = {"block_id": block.block_id, "tune_id": self.key(block), "worker": self.worker}
        self.store.ledger.add(event, **told, **entries)


def learn(
    model: nn.Module,
    data: Lent,
    students: Sequence[Student],
    layouts: Layouts,
    after_epoch: Callable[[Student], None],
) -> None:
    """Let students learn from the origin until all are done.

    What becomes of one does not depend on the others. Each may begin at an epoch of its own.

    :param after_epoch: told of a student after each of its epochs; also of one that was done before
    """
    steps = data.steps()
    with Teaching(model, students, layouts) as teaching:

        def measure(those: Sequence[Student]) -> None:
            teaching.teach(those, learning=False)
            for batch in data.held_out() if those else ():
                teaching.run(lambda: data.call(model, batch), data.masks(batch))  # noqa: B023
            found = teaching.held_out()
            for student in those:
                student.measured(found[student.block.block_id])

        measure([one for one in students if not one.losses])
        for student in students:
            if student.done:
                after_epoch(student)
        for epoch in range(min((s.epoch for s in students), default=0), _epochs(students)):
            active = [one for one in students if one.epoch == epoch and not one.done]
            teaching.teach(active)
            for batch in data.training(epoch) if active else ():
                teaching.run(lambda: data.call(model, batch), data.masks(batch))  # noqa: B023
                for student in active:
                    student.step(steps)
            measure(active)
            for student in active:
                after_epoch(student)


def _epochs(students: Sequence[Student]) -> int:
    return max((student.settings.epochs for student in students), default=0)


def prune_blocks(plan: Plan, model: nn.Module, store: BlockStore, data: Lent | None = None) -> int:
    """Write all blocks of a plan as they are pruned, and return how many were not there.

    :raises DigestError: if the plan is of another model, or the blocks are not those of the plan
    """
    plan.check_model(model)
    store.adopt(plan)
    there = {one["block_id"] for one in store.ledger.events(PRUNED)}
    missing = [block for block in plan.blocks if block.block_id not in there]
    if not missing:
        return 0
    asking = asking_of(model, data, bool(plan.settings["allow_residual"]))
    kind = plan.settings["blocks"]
    _, found = make_plan(model, configurations_of(plan), asking, kind, plan.base)
    if [one.block for one in found] != list(plan.blocks):
        raise DigestError("pruning again gives other blocks than the plan has: make the plan anew")
    for one in found:
        store.prune(one.block, one.tensors(model), one.masks())
    return len(missing)


def asking_of(model: nn.Module, data: Lent | None, allow_residual: bool) -> Asking:
    """Return what finds out what configurations ask for, with what the data lend to it."""
    if data is None:
        return Asking(model, allow_residual=allow_residual)
    inputs = next(iter(data.held_out()), None)
    return Asking(model, inputs, data.grad_sampler(), allow_residual)


def groups_of(
    blocks: Sequence[Block], model: nn.Module, max_memory: int | None, least: int = 1
) -> list[list[Block]]:
    """Return blocks in groups of neighbours that fit the memory, each tuned in one pass.

    :param least: how many groups there shall be, if there are blocks enough
    :raises RunError: for a block that is too large by itself
    """
    sizes = {}
    for block in blocks:
        params = [p for name in block.modules for p in model.get_submodule(name).parameters()]
        sizes[block.block_id] = MEMORY_OF_WEIGHT * sum(param.numel() for param in params)
        if max_memory is not None and sizes[block.block_id] > max_memory:
            raise RunError(
                f"--max-memory: tuning {block.label} takes {sizes[block.block_id]} bytes, allowed "
                f"are {max_memory}"
            )
    share = sum(block.cost_estimate for block in blocks) / max(1, least)
    groups: list[list[Block]] = []
    room, cost = 0, 0.0
    for block in blocks:
        room, cost = room + sizes[block.block_id], cost + block.cost_estimate
        full = max_memory is not None and room > max_memory
        if not groups or full or (cost > share * len(groups) and len(groups) < least):
            groups.append([])
            room = sizes[block.block_id]
        groups[-1].append(block)
    return groups


def shared_out(groups: Sequence[Sequence[Block]], workers: int) -> list[list[int]]:
    """Return for each worker the groups that it begins with: the longest first, to who has least.

    :return: positions in ``groups``
    """
    loads = [(0.0, worker) for worker in range(workers)]
    found: list[list[int]] = [[] for _ in range(workers)]
    costs = [sum(block.cost_estimate for block in group) for group in groups]
    for place in sorted(range(len(groups)), key=lambda one: (-costs[one], one)):
        load, worker = heapq.heappop(loads)
        found[worker].append(place)
        heapq.heappush(loads, (load + costs[place], worker))
    return found


def tune(job: TuneJob, say: Callable[[str], None] = print) -> str:
    """Tune all blocks of a plan that are not yet tuned in this way.

    :param say: told of the estimate before anything runs, and of what was done
    :return: the id of the way
    :raises DigestError: for another model than that of the plan, and for altered files
    :raises RunError: for data that cannot be used, and if a worker fails
    """
    bench, plan, blocks = _bench(job, "0", {})
    prune_blocks(plan, bench.model, bench.store, bench.data)
    todo = bench.missing(blocks)
    workers = max(1, min(job.workers, len(todo)))
    groups = groups_of(todo, bench.model, job.max_memory, workers)
    for line in told_costs(plan, costs_of(plan, bench.model, job.settings.epochs, groups)):
        say(line)
    known = len(blocks) - len(todo)
    say(f"{len(todo)} blocks to tune in {len(groups)} passes, {known} are there")
    for block in todo if not job.resume else ():
        shutil.rmtree(bench.store.state_path(bench.key(block)).parent, ignore_errors=True)
    outputs = [block.modules[-1] for block in todo]
    batches = itertools.chain(bench.data.held_out(), bench.data.training(0))
    calls = ((partial(bench.data.call, bench.model, one), bench.data.masks(one)) for one in batches)
    bench.layouts = find_layouts(bench.model, outputs, calls)
    order = shared_out(groups, workers)
    if workers == 1:
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        work(bench, [groups[place] for place in order[0]], todo)
    else:
        _in_processes(
            job, bench.layouts, [[groups[place] for place in mine] for mine in order], todo
        )
    for block in blocks:
        done = bench.store.finished(bench.key(block))
        assert done is not None
        say(f"{block.label} {_kept(block)}: loss {done['before']:.4g} -> {done['after']:.4g}")
    return bench.tuning


def work(bench: Bench, own: Sequence[Sequence[Block]], all_blocks: Sequence[Block]) -> None:
    """Tune one's own groups, then what is left of the others'; end when all are finished."""
    for group in own:
        bench.tune(group)
    while missing := bench.missing(all_blocks):
        if not bench.tune(missing[:1]) and bench.missing(missing[:1]):
            others = [block for block in missing[1:] if bench.tune([block])]
            if not others:
                time.sleep(_WAIT)  # others are at work on them


def _bench(
    job: TuneJob, worker: str, layouts: Layouts, device: str = "cpu"
) -> tuple[Bench, Plan, list[Block]]:
    store = BlockStore(job.store)
    plan = store.plan()
    model = load_origin(job.model, job.weights).to(device)
    plan.check_model(model)
    data = load_data(job.data, job.batch_size, device)
    tuning = tuning_id(job.settings, data.fingerprint())
    wanted = None if job.blocks is None else set(job.blocks)
    blocks = [one for one in plan.blocks if wanted is None or one.block_id in wanted]
    return Bench(store, model, data, job.settings, tuning, layouts, worker), plan, blocks


def _in_processes(
    job: TuneJob, layouts: Layouts, own: Sequence[Sequence[Sequence[Block]]], todo: Sequence[Block]
) -> None:
    context = multiprocessing.get_context("spawn")
    threads = job.threads or max(1, torch.get_num_threads() // len(own))
    running = []
    for number, groups in enumerate(own):
        device = job.devices[number % len(job.devices)]
        given = job, str(number), dict(layouts), groups, list(todo), device, threads
        process = context.Process(target=_worker, args=given)
        process.start()
        running.append(process)
    for process in running:
        process.join()
    if failed := [number for number, process in enumerate(running) if process.exitcode]:
        raise RunError(f"worker {failed[0]} has failed with status {running[failed[0]].exitcode}")


def _worker(
    job: TuneJob,
    worker: str,
    layouts: Layouts,
    own: Sequence[Sequence[Block]],
    todo: Sequence[Block],
    device: str,
    threads: int,
) -> None:
    def run() -> None:
        torch.set_num_threads(threads)
        work(_bench(job, worker, layouts, device)[0], own, todo)

    raise SystemExit(run_reported(run))


def _kept(block: Block) -> str:
    parts = [
        f"{kept['heads']} of {kept['of']} heads" if isinstance(kept, Mapping) else f"{kept} weights"
        for kept in block.spec["target"].values()
    ]
    return ", ".join(parts[:2]) + (", ..." if len(parts) > 2 else "")
