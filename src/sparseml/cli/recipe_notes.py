"""What ``sparseml recipe check`` says in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from sparseml.cli.recipe_plan import Plan
from sparseml.cli.recipe_tables import number_text

__all__ = ["notes"]

_HOW_TO_GIVE = {
    "grad_sampler": (
        "{'data_loader_builder': ..., 'loss_function': ...}, as `sparseml prune` and `sparseml "
        "train` do"
    ),
    "distillation_teacher": "MODEL or 'self', as `sparseml train --teacher MODEL` does",
}


def notes(plan: Plan) -> Iterator[str]:
    """Yield one sentence or two on each thing that is worth knowing."""
    yield from map(_overlap, plan.get("overlaps", []))
    for number, modifier in enumerate(plan["modifiers"], start=1):
        yield from (f"#{number} {note}" for note in _of_modifier(modifier, plan["epochs"]))
    if plan["steps_per_epoch_assumed"]:
        yield f"{plan['steps_per_epoch']} steps per epoch are assumed; --steps-per-epoch sets them."
    if "coverage" in plan:
        yield from _coverage(plan["coverage"])


def _of_modifier(modifier: Plan, epochs: int) -> Iterator[str]:
    if "inert" in modifier:
        yield f"is loaded and cannot run: {modifier['inert']}."
        return
    if modifier.get("never_acts"):
        yield f"never acts: a run of {_epochs(epochs)} is over before it starts."
    for late in modifier.get("late_updates", []):
        yield f"does not get to its update at epoch {late:g}: a run has {_epochs(epochs)}."
    if "frees_at" in modifier:
        yield (
            f"ends at epoch {number_text(modifier['frees_at'])} and lets go of its masks: the "
            "weights grow again, unless another modifier holds them."
        )
    if "reaches" in modifier:
        yield (
            f"ends when a run of {_epochs(epochs)} is over: the last update within it "
            f"{_reached(modifier['reaches'])}. End the modifier earlier, or train longer."
        )
    for name, without in modifier.get("needs", {}).items():
        yield (
            f"asks for a {name.replace('_', ' ')}; without one {without}. Give manager.modify, "
            f"initialize or apply {name}={_HOW_TO_GIVE.get(name, '...')}."
        )
    if "one_shot_sparsity" in modifier:
        sparsity = modifier["one_shot_sparsity"]
        does = "keeps zero what is" if sparsity is None else f"sparsity {number_text(sparsity)}"
        yield f"in one shot (manager.apply): {does}."


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _reached(reaches: Plan) -> str:
    if "share" in reaches:
        return f"goes {reaches['share']:.4g} of the way"
    reached, final = (number_text(reaches[key]) for key in ("sparsity", "final_sparsity"))
    return f"asks for {reached}, not for {final}"


def _overlap(pair: Plan) -> str:
    first, second = pair["modifiers"]
    names, until = pair["names"], pair["end_epoch"]
    tensors = names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]}, ...)"
    end = "the end" if until < 0 else f"epoch {number_text(until)}"
    start = number_text(pair["start_epoch"])
    return (
        f"#{first} and #{second} both prune {tensors} from epoch {start} to {end}: their masks "
        "multiply, and more may be pruned than either asks for."
    )


def _count(kind: str, found: Plan) -> str:
    return f"{found['weights']:,} weights of {kind}"


def _coverage(coverage: Plan) -> Iterator[str]:
    if coverage["by_name_only"]:
        first = max(coverage["by_name_only"], key=lambda one: one["weights"])["name"]
        yield (
            f"By name only: __ALL_PRUNABLE__ does not mean these; '{first}' in params would prune "
            "one of them."
        )
    if rest := coverage["rest"]:
        yield f"Dense besides: {', '.join(_count(*item) for item in rest.items())}."
    for kind, found in coverage["pruned_rest"].items():
        leaves = "" if kind == "embeddings" else "; __ALL_PRUNABLE__ leaves them out"
        yield f"Pruned as well: {_count(kind, found)}, as in {found['first']}{leaves}."
    if unknown := coverage["unknown_weights"]:
        yield f"{unknown:,} weights keep the zeros that they have; how many, this cannot tell."
    if coverage["sparsity"] == 0.0:
        return
    yield (
        f"In all {coverage['sparsity']:.2%} of {coverage['weights']:,} weights become zero; of the "
        f"{coverage['layer_weights']:,} in linear and convolution layers "
        f"{coverage['layer_sparsity']:.2%}."
    )
