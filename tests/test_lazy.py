"""Names that are imported when first used, and the old paths that lead to them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sparseml
from sparseml.lazy import lazy_names, moved

ROOT = Path(sparseml.__file__).parent
_PATHS = (
    "cli optim pytorch pytorch.nn pytorch.optim pytorch.sparsification pytorch.utils "
    "pytorch.utils.helpers pytorch.utils.model report sparsification utils utils.helpers"
)
LIVE = [f"sparseml.{path}" for path in _PATHS.split()]


def old_paths() -> list[str]:
    """The modules that hold nothing but the way to another one."""
    files = [path for path in ROOT.rglob("*.py") if "= moved(" in path.read_text(encoding="utf-8")]
    parts = [path.relative_to(ROOT.parent).with_suffix("").parts for path in files]
    return sorted(".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts)


@pytest.mark.parametrize("path", old_paths())
def test_an_old_path_has_all_names_of_the_new_one(path: str) -> None:
    module: Any = importlib.import_module(path)
    home = module.__doc__.split("`")[1].lstrip("~")
    new = importlib.import_module(home)
    assert module.__all__ == new.__all__
    assert set(new.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is getattr(new, name)
    with pytest.raises(AttributeError, match=rf"module '{home}' has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("path", LIVE)
def test_every_announced_name_is_there(path: str) -> None:
    package = importlib.import_module(path)
    assert len(set(package.__all__)) == len(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_nothing_loads_legacy_or_the_compiler_before_it_is_asked_for() -> None:
    """torch's own takes as long as torch, again."""
    code = (
        f"import sys, importlib; [importlib.import_module(path) for path in {LIVE}]; "
        "late = ('sparseml.legacy', 'torch._dynamo', 'triton'); "
        "print([name for name in sys.modules if name.startswith(late)]); "
        "from sparseml.pytorch.utils import ModuleTrainer; print(ModuleTrainer.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "sparseml.legacy.module_run.runners"]


def test_results_need_no_torch() -> None:
    code = (
        "import sys; from sparseml.optim import PruningLossSensitivityAnalysis, AnalyzedLayerDesc; "
        "from sparseml.sparsification import RecipeYAMLBuilder; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    get, names = lazy_names(__name__, {"math": "pi tau", "sparseml.version": "version"})
    assert get("pi") == 3.141592653589793
    assert {"pi", "tau", "version", "LIVE"} <= set(names())
    with pytest.raises(AttributeError, match=rf"module '{__name__}' has no attribute 'e'"):
        get("e")
    monkeypatch.setattr("math.pi", 3)
    assert get("pi") == 3, "nothing is kept"
    get, names = moved(__name__, "sparseml.version")
    assert get("version") == sparseml.version
    assert set(get("__all__")) <= set(names())
    with pytest.raises(AttributeError, match="__path__"):
        get("__path__")


_PRUNING = "sparseml.pytorch.sparsification.pruning"
DEFINED_IN = {
    f"{_PRUNING}.modifier_pruning_base": "BaseGradualPruningModifier BasePruningModifier",
    f"{_PRUNING}.modifier_pruning_constant": "ConstantMaskCreator ConstantPruningModifier",
    f"{_PRUNING}.modifier_pruning_magnitude": "GMPruningModifier MagnitudePruningParamsScorer",
    f"{_PRUNING}.modifier_pruning_mfac": "FisherInverse FisherInverseFast FisherInverseFastBlock "
    "FisherInverseFastPageSwap FisherInverseFastSmallBlocks MFACPruningParamsScorer",
    f"{_PRUNING}.modifier_pruning_movement": "MovementPruningParamsScorer",
    f"{_PRUNING}.modifier_pruning_obs": "EmpiricalBlockFisherInverse OBSPruningParamsScorer",
    f"{_PRUNING}.modifier_pruning_rigl": "RigLPruningParamsScorer",
    f"{_PRUNING}.mask_params": "ModuleParamPruningMask",
    "sparseml.pytorch.optim.analyzer_pruning": "ModulePruningAnalyzer",
    "sparseml.pytorch.optim.mask_pruning_scorer": "AVALIABLE_SCORER_CLASSES "
    "MagnitudePruningParamsScorer MovementPruningParamsScorer PruningParamsScorer "
    "create_pruning_param_scorer",
    "sparseml.pytorch.optim.sensitivity_as": "ASLayerTracker LayerBoostResults "
    "ModuleASOneShootBooster",
    "sparseml.pytorch.utils.exporter": "ModuleExporter export_onnx",
    "sparseml.pytorch.utils.sparsification_info.configs": "SparsificationInfo",
    "sparseml.utils.worker": "ParallelWorker",
    "sparseml.utils.wrapper": "wrapper_decorator",
}


@pytest.mark.parametrize("path", DEFINED_IN)
def test_a_module_has_what_was_defined_in_it(path: str) -> None:
    module = importlib.import_module(path)
    package = importlib.import_module(path.rpartition(".")[0])
    for name in DEFINED_IN[path].split():
        found = getattr(module, name)
        assert name in dir(module)
        if name != "SparsificationInfo":
            assert getattr(package, name) is found


def test_the_package_above_hands_on_all_of_pruning() -> None:
    above = importlib.import_module("sparseml.pytorch.sparsification")
    inner = importlib.import_module(_PRUNING)
    wrong = [
        name
        for name in inner.__all__
        if name in above.__all__ and getattr(above, name) is not getattr(inner, name)
    ]
    # building blocks of new modifiers, which 1.x did not have
    own = {"Change", "GradientSampler", "GradualFields", "MaskSet", "Method", "Outcome"}
    assert wrong == []
    assert set(inner.__all__) - set(above.__all__) == own | {"PatternFields", "Problem"}
