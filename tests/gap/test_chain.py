"""Grow-and-prune as a chain of runs: what is started, what is kept, and how it goes on."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sparseml.cli import main
from sparseml.gap.merge import merge
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import GaPPruningModifier
from sparseml.pytorch.utils.saving.files import read_safetensors
from sparseml.run.masks import read_masks, write_masks
from sparseml.utils.locks import FolderLock

FLAGS = ["--steps", "4", "--epochs-per-step", "1", "--sparsity", "0.75", "--finetune-epochs", "2"]
STEPS = ["step_0", "step_1", "step_2", "step_3", "final"]

RATES = {
    "constant": [0.2, 0.2, 0.2],
    "linear": [0.2, 0.1, 0.05],
    "cosine": [0.2, 0.1, 0.2 * (1 - 2**-0.5) / 2],
    "step": [0.2, 0.05, 0.025],
}


def weights(path):
    return read_safetensors(Path(path))[0]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_all_steps_then_all_sparse(chain, children, manifest):
    told = chain(*FLAGS, "--seed", "7")
    assert told.splitlines() == [f"{name}: done" for name in STEPS]
    entries = manifest()
    assert list(entries) == STEPS and children.names == STEPS
    assert [entry["seed"] for entry in entries.values()] == [7, 8, 9, 10, 11]
    for name, before in zip(STEPS[1:], STEPS, strict=False):
        entry = entries[name]
        assert entry["state"] == "done" and entry["parent"] == entries[before]["checkpoint"]
        assert entry["parent_hash"] == entries[before]["checkpoint_hash"]
        assert entry["checkpoint_hash"] == digest(entry["checkpoint"])
        assert entry["recipe_hash"] == digest(f"out/recipes/{name}.yaml")
    for step, name in enumerate(STEPS):
        masks = read_masks(Path("out") / name / "masks.safetensors")
        dense = [list(masks).index(key) for key, mask in masks.items() if mask.all()]
        assert dense == ([step % 3] if name != "final" else [])
    final = weights("out/final/model.safetensors")
    assert [int((final[f"{n}.weight"] == 0).sum()) for n in (0, 2, 4)] == [45, 90, 27]


@pytest.mark.parametrize("pooled", [False, True])
def test_a_chain_equals_one_run(chain, children, pooled):
    text = (
        "m_modifiers: [!GaPPruningModifier {params: __ALL_PRUNABLE__, final_sparsity: 0.75, "
        f"num_steps: 4, update_frequency: 1.0, global_sparsity: {pooled}}}]"
    )
    Path("one.yaml").write_text(text)
    chain("--recipe", "one.yaml", "--finetune-epochs", "1", "--seed", "3")
    conftest = sys.modules[type(children).__module__]
    model = conftest.net()
    manager = ScheduledModifierManager.from_yaml("one.yaml")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    stepper = manager.modify(model, optimizer, steps_per_epoch=conftest.PER_EPOCH)
    for number in range(5):
        generator = torch.Generator().manual_seed(3 + number)
        for _ in range(conftest.PER_EPOCH):
            optimizer.zero_grad()
            (model(torch.randn(5, 6, generator=generator)) - 1).pow(2).mean().backward()
            stepper.step()
        if number >= 3:  # the last step, whose partition stays dense in the chain; and the end
            name = "final" if number == 4 else "step_3"
            left = weights(f"out/{name}/model.safetensors")
            same = [torch.equal(value, left[key]) for key, value in model.state_dict().items()]
            assert all(same), name
    masks = read_masks(Path("out/final/masks.safetensors"))
    assert all(
        torch.equal(manager.pruning_modifiers[0].masks[name], m) for name, m in masks.items()
    )


def test_patterns_with_backslashes(chain, children):
    chain(*FLAGS, "--params", r"re:\d\.weight", "--parts", "2")
    assert len(read_masks(Path("out/final/masks.safetensors"))) == 4


def test_going_on_from_a_step(chain, children):
    chain(*FLAGS)
    done = len(children.commands)
    assert "give --resume as well" in chain(*FLAGS, "--from-step", "2", status=2)
    more = ["--steps", "6", *FLAGS[2:-1], "0", "--resume", "--from-step"]
    assert "step_4 is pending, so that step 5 cannot go on from it" in chain(*more, "5", status=2)
    assert len(children.commands) == done
    chain(*more, "4")
    assert children.names[done:] == ["step_4", "step_5"]


@pytest.mark.parametrize("across", RATES)
def test_rates_are_the_same_after_a_failure(chain, children, manifest, across):
    flags = [*FLAGS, "--lr", "0.2", "--lr-across-steps", across]
    flags += ["--lr-decay-factor", "0.5"] if across == "step" else []
    children.failing = {"step_1"}
    chain(*flags, status=2)
    children.failing = set()
    chain(*flags, "--resume")
    given = [entry["rate"] for entry in manifest().values()]
    first, middle, last = RATES[across]
    assert given == pytest.approx([first, given[1], middle, last, first])


def test_what_was_tied_and_checkpoints_of_torch_are_merged(tmp_path):
    shared = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])]
    files = []
    for worker, table in enumerate(shared):
        folder = tmp_path / str(worker)
        folder.mkdir()
        model = {"table": table, "out": table, "norm": torch.ones(2) * worker}
        model["a"] = torch.full((2,), float(worker))
        files.append(folder / "last.pt")
        torch.save({"model": model, "last_optimizer_state": {"step": 3}, "best": 1.0}, files[-1])
        dense = {
            "table": torch.tensor([[True, worker == 1]]),
            "a": torch.tensor([True, worker == 0]),
        }
        write_masks(folder / "masks.safetensors", dense)
    merge(files, tmp_path / "merged.pt")
    found = torch.load(tmp_path / "merged.pt", weights_only=True)
    assert found["best"] == 1.0 and found["last_optimizer_state"] is None
    own = {name: value.tolist() for name, value in found["model"].items()}
    assert own == {"table": [[3.0, 4.0]], "out": [[3.0, 4.0]], "norm": [0.0, 0.0], "a": [0.0, 0.0]}


def test_a_failure_ends_the_chain_and_resume_goes_on(chain, children, manifest):
    children.failing = {"step_2"}
    told = chain(*FLAGS, status=2)
    assert "error: step_2 has failed with status 3, see" in told and "out of luck" in told
    assert children.names == STEPS[:3]
    states = {name: entry["state"] for name, entry in manifest().items()}
    assert states == dict(zip(STEPS, ["done", "done", "failed", "pending", "pending"], strict=True))
    assert "holds a chain already; --resume" in chain(*FLAGS, status=2)
    children.failing, children.commands = set(), []
    told = chain(*FLAGS, "--resume")
    assert told.splitlines()[:2] == ["step_0: done before", "step_1: done before"]
    assert children.names == STEPS[2:]
    assert {entry["state"] for entry in manifest().values()} == {"done"}
    children.commands = []
    chain(*FLAGS, "--resume")
    assert not children.commands


def test_what_a_child_leaves_is_looked_at(chain, children, manifest):
    children.spoiling = {"step_1"}
    told = chain(*FLAGS, status=2)
    assert "step_1: 0.weight, 4.weight in" in told and "not zero where their masks are" in told
    assert manifest()["step_1"]["state"] == "failed" and children.names == STEPS[:2]


def test_resuming_wants_the_same_plan_and_files(chain, children):
    chain(*FLAGS)
    other = [*FLAGS[:-3], "0.8", *FLAGS[-2:]]
    assert "step_0 was done with recipe_hash" in chain(*other, "--resume", status=2)
    assert "with seed 42, not with 5" in chain(*FLAGS, "--seed", "5", "--resume", status=2)
    more = ["--steps", "5", *FLAGS[2:-1], "0"]
    assert chain(*more, "--resume").splitlines()[-1] == "step_4: done"
    Path("out/step_0/model.safetensors").write_bytes(b"other")
    assert "has changed since step_0 was done" in chain(*FLAGS, "--resume", status=2)
    Path("out/step_0/model.safetensors").unlink()
    assert "step_0 is done, but" in chain(*FLAGS, "--resume", status=2)
    Path("out/manifest.json").write_text("{")
    assert "manifest.json cannot be read" in chain(*FLAGS, "--resume", status=2)


def test_a_dry_run_starts_and_writes_nothing(chain, children, tmp_path):
    told = chain(*FLAGS, "--dry-run", "--lr", "0.1", "--lr-across-steps", "linear")
    assert not children.commands and not list(tmp_path.iterdir())
    assert "step_0: 1 epoch, seed 42, lr 0.1\n" in told
    assert "step_2: 1 epoch, seed 44, lr 0.05\n" in told
    assert "final: 2 epochs, seed 46, lr 0.1\n" in told


@pytest.mark.parametrize("across", RATES)
def test_learning_rates_across_steps(chain, children, across):
    child = ["child", "{recipe}", "{output}", "{seed}", "{epochs}", "{lr}"]
    flags = [*FLAGS, "--dry-run", "--lr", "0.2", "--lr-across-steps", across]
    flags += ["--lr-decay-factor", "0.5"] if across == "step" else []
    told = chain(*flags, child=child).splitlines()
    given = [float(line.split()[5]) for line in told[1::2]]
    first, middle, last = RATES[across]
    assert given == pytest.approx([first, given[1], middle, last, first])
    shown = [float(line.rpartition("lr ")[2]) for line in told[::2]]
    assert shown[:4:2] == pytest.approx([first, middle], rel=1e-4)
    assert shown[3] == pytest.approx(last, rel=1e-4)


def test_random_groups_are_those_of_one_run(chain, children):
    chain(*FLAGS, "--partition-type", "random", "--finetune-epochs", "0")
    dense = []
    for name in STEPS[:4]:
        masks = read_masks(Path("out") / name / "masks.safetensors")
        dense.append([name for name, mask in masks.items() if mask.all()])
    conftest = sys.modules[type(children).__module__]
    modifier = GaPPruningModifier("__ALL_PRUNABLE__", 0.75, num_steps=4, partition_type="random")
    layout = modifier.layout(conftest.net())
    assert dense == [[layout.selected[place].name for place in g] for g in layout.groups]


@pytest.mark.parametrize("rest", ["first", "mean"])
def test_parallel_workers_are_merged(chain, children, manifest, rest):
    flags = ["--partition-type", "parallel", "--workers", "2", "--rest", rest]
    told = chain("--steps", "2", *FLAGS[2:], *flags)
    assert "step_1: 3 workers merged" in told and told.splitlines()[-1] == "final: done"
    workers = [weights(f"out/step_0/worker_{n}/model.safetensors") for n in range(3)]
    merged = weights("out/step_0/merged.safetensors")
    owner = json.loads(Path("out/step_0/merged.json").read_text())["owner"]
    assert list(owner) == list(merged) == list(workers[0])
    for name, worker in owner.items():
        if worker is not None:
            assert torch.equal(merged[name], workers[worker][name])
        elif rest == "first":
            assert torch.equal(merged[name], workers[0][name])
        else:
            assert torch.allclose(merged[name], sum(w[name] for w in workers) / 3)
    assert [owner[f"{n}.weight"] for n in (0, 2, 3, 4)] == [0, 1, None, 2]
    masks = [read_masks(Path(f"out/step_0/worker_{n}/masks.safetensors")) for n in range(3)]
    assert torch.equal(masks[1]["0.weight"], masks[2]["0.weight"])  # drawn by one seed
    files = [f"out/step_0/worker_{n}/model.safetensors" for n in range(3)]
    gap = ["gap", "merge", "-o", "own.safetensors"]
    done = CliRunner().invoke(main, [*gap, *files, "--rest", rest])
    counts = [f"worker {n}: 1 tensors" for n in range(3)]
    assert done.stdout.splitlines() == [*counts, f"{rest}: 5 tensors"]
    assert digest("own.safetensors") == digest("out/step_0/merged.safetensors")
    done = CliRunner().invoke(main, [*gap, files[0], files[0]])
    assert done.exit_code == 2 and "workers 0 and 1 have both grown 0.weight" in done.stderr
    done = CliRunner().invoke(main, [*gap, *files[:2]])
    assert done.exit_code == 2 and "no worker has grown 4.weight" in done.stderr
    final = weights("out/final/model.safetensors")
    assert [int((final[f"{n}.weight"] == 0).sum()) for n in (0, 2, 4)] == [45, 90, 27]
    assert manifest()["step_1/worker_2"]["parent"].endswith("step_0/merged.safetensors")


def test_a_folder_of_own_recipes(chain, children, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/step_1.yaml").write_text(
        "m_modifiers: [!GaPPruningModifier {params: ['re:.*[024].weight'], num_steps: 0, "
        "final_sparsity: 0.75}]"
    )
    chain(*FLAGS, "--recipe-dir", "own")
    masks = read_masks(tmp_path / "out/step_1/masks.safetensors")
    assert not any(mask.all() for mask in masks.values())


def test_the_child_that_comes_with_it(chain, children, tmp_path):
    told = chain(*FLAGS, "--lr", "0.1", "--gpus", "2", "--dry-run", child=["--model", "resnet18"])
    first, second = told.splitlines()[1:4:2]
    assert "-m torch.distributed.run --standalone --nproc-per-node=2 --no-python" in first
    assert "from sparseml.cli import main" in first and " train --recipe " in first
    assert f"--output {tmp_path}/out --experiment step_0 --seed 42 --epochs 1 --lr 0.1" in first
    assert first.endswith("--overwrite --model resnet18") and "--checkpoint" not in first
    assert f"--checkpoint {tmp_path}/out/step_0/model.safetensors" in second


BAD = [
    (["--steps", "3", "--recipe", "x"], "x", None),
    ([], "--steps or --recipe must say how many steps", None),
    (["--steps", "2", "--lr-across-steps", "step", "--lr", "1"], "need each other", None),
    (["--steps", "2", "--lr-across-steps", "cosine"], "cosine needs --lr", None),
    (["--steps", "2", "--lr-across-steps", "cosin"], "cosin", None),
    (["--steps", "2", "--recipe-dir", "none"], "--recipe-dir none: no such folder", None),
    (["--steps", "2"], "has {recipe}, but no {output}", ["child", "{recipe}"]),
    (["--steps", "2"], "has no {recipe}", ["child", "{output}"]),
    (["--steps", "2"], "{lr}: give --lr as well", ["child", "{recipe}", "{output}", "{lr}"]),
    (["--recipe", "two.yaml"], "must have one GaPPruningModifier, found 2", None),
    (["--recipe", "long.yaml"], "SetLearningRateModifier goes on beyond epoch 5", None),
    (["--recipe", "half.yaml"], "whole number of epochs, found 0.5", None),
    (["--recipe", "long.yaml", "--sparsity", "0.5"], "--sparsity and --recipe", None),
]


@pytest.mark.parametrize(("flags", "message", "child"), BAD)
def test_what_cannot_be(chain, children, tmp_path, flags, message, child):
    gap = "!GaPPruningModifier {params: [a], final_sparsity: 0.5, num_steps: 2}"
    late = "!SetLearningRateModifier {learning_rate: 0.1, start_epoch: 9.0}"
    half = gap.replace("2}", "2, update_frequency: 0.5}")
    for name, text in {"two": f"{gap}, {gap}", "long": f"{gap}, {late}", "half": half}.items():
        (tmp_path / f"{name}.yaml").write_text(f"m_modifiers: [{text}]")
    told = chain(*flags, status=2, **({} if child is None else {"child": child}))
    assert message in told and not children.commands and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_with_processes_of_its_own(chain, tmp_path):
    script = tmp_path / "child.py"
    conftest = Path(__file__).with_name("conftest.py")
    script.write_text(
        f"import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('one', {str(conftest)!r})\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "module.train(*sys.argv[1:])\n"
    )
    child = [sys.executable, str(script), "{recipe}", "{output}", "{seed}", "{epochs}"]
    told = chain("--steps", "1", *FLAGS[2:], child=child)
    assert told.splitlines() == ["step_0: done", "final: done"]


def test_two_chains_cannot_be_at_work_in_one_workspace(chain, children, in_two, tmp_path):
    chain(*FLAGS)

    def run(rank):
        if rank == 0:
            lock = FolderLock("out")
            (tmp_path / "held").touch()
            while not (tmp_path / "tried").exists():
                time.sleep(0.02)
            lock.release()
            return
        while not (tmp_path / "held").exists():
            time.sleep(0.02)
        try:
            print(chain(*FLAGS, "--resume", status=2), file=sys.stderr)
        finally:
            (tmp_path / "tried").touch()

    holding, refused = in_two(run)
    assert (holding.status, refused.status) == (0, 0), refused.error
    assert "another process is writing into" in refused.error
    chain(*FLAGS, "--resume")


def test_a_manifest_that_is_nested_deeply_is_told(chain, children):
    Path("out").mkdir()
    Path("out/manifest.json").write_text("[" * 100_000)
    assert "out/manifest.json cannot be read: it is nested too deeply" in chain(
        *FLAGS, "--resume", status=2
    )
