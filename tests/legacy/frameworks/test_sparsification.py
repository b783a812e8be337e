from __future__ import annotations

from pathlib import Path

import pytest

from sparseml.sparsification import (
    ModifierInfo,
    ModifierPropInfo,
    ModifierType,
    SparsificationInfo,
    SparsificationTypes,
    load_sparsification_info,
    save_sparsification_info,
    sparsification_info,
)

PRUNER = ModifierInfo(
    name="Pruner",
    description="prunes",
    type_=ModifierType.pruning,
    props=[ModifierPropInfo(name="params", description="which", type_="list", restrictions=["a"])],
    warnings=["slow"],
)


def test_kinds() -> None:
    kinds = ["general", "training", "pruning", "quantization", "act_sparsity", "misc"]
    assert [kind.value for kind in ModifierType] == kinds
    assert [kind.name for kind in SparsificationTypes] == [
        "general", "epoch", "learning_rate", "activation_sparsity", "pruning", "quantization",
        "distillation", "regularization", "structured",
    ]  # fmt: skip


def test_modifiers_of_one_kind() -> None:
    other = ModifierInfo(name="Other", description="")
    assert other.type_ is ModifierType.misc and other.props == [] and other.warnings is None
    info = SparsificationInfo(modifiers=[PRUNER, other])
    assert info.type_modifiers(ModifierType.pruning) == [PRUNER]
    assert info.type_modifiers(ModifierType.training) == []
    assert SparsificationInfo().modifiers == []


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = SparsificationInfo(modifiers=[PRUNER])
    path = tmp_path / "info.json"
    save_sparsification_info(info, path)
    assert load_sparsification_info(str(path)) == info
    save_sparsification_info("pytorch")
    assert load_sparsification_info(capsys.readouterr().out) == sparsification_info("pytorch")
    with pytest.raises(FileNotFoundError):
        load_sparsification_info(str(tmp_path / "no.json"))
    with pytest.raises(ValueError):
        sparsification_info("nonsense")
