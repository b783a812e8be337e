"""Mask creators, scorers and masks by the names that SparseML had first."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparseml.pytorch import optim
from sparseml.pytorch.optim import (
    AVALIABLE_SCORER_CLASSES,
    BlockPruningMaskCreator,
    DimensionSparsityMaskCreator,
    FourBlockMaskCreator,
    GroupedPruningMaskCreator,
    ModuleParamPruningMask,
    MovementPruningParamsScorer,
    PruningMaskCreator,
    UnstructuredPruningMaskCreator,
    create_pruning_param_scorer,
    load_mask_creator,
)
from sparseml.pytorch.sparsification import pruning

CREATORS = {
    "unstructured": UnstructuredPruningMaskCreator,
    "block": FourBlockMaskCreator,
    "filter": lambda: DimensionSparsityMaskCreator("filter"),
    "channel": lambda: DimensionSparsityMaskCreator(1),
    "[2, 4]": lambda: BlockPruningMaskCreator([2, 4]),
}


def sparsity(tensor):
    return (tensor == 0).double().mean().item()


@pytest.fixture(params=CREATORS)
def creator(request):
    return CREATORS[request.param]()


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return [torch.rand(8, 16) + 0.1, torch.rand(4, 8, 3, 3) + 0.1]


class TestMaskCreators:
    def test_names(self, creator, weights):
        assert isinstance(creator, PruningMaskCreator)
        assert CREATORS[str(creator)] is not None
        again = load_mask_creator(str(creator))
        assert type(again) is type(creator) and str(again) == str(creator)
        assert isinstance(creator, GroupedPruningMaskCreator) == (str(creator) != "unstructured")

    @pytest.mark.parametrize("wanted", [0.0, 0.25, 0.5])
    def test_from_sparsity(self, creator, weights, wanted):
        masks = creator.create_sparsity_masks(weights, sparsity=wanted)
        assert [sparsity(mask) for mask in masks] == [wanted] * 2

    def test_same_masks_as_the_modifiers(self, weights):
        pairs = [
            (UnstructuredPruningMaskCreator(), pruning.UnstructuredPruningMaskCreator()),
            (FourBlockMaskCreator(), pruning.FourBlockMaskCreator()),
            (BlockPruningMaskCreator([1, 4]), pruning.BlockMaskCreator([1, 4])),
            (DimensionSparsityMaskCreator(0), pruning.StructuredPruningMaskCreator("filter")),
        ]
        for own, other in pairs:
            found, expected = (c.create_sparsity_masks(weights, 0.3) for c in (own, other))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    def test_global_sparsity(self, weights):
        masks = UnstructuredPruningMaskCreator().create_sparsity_masks(
            [weights[0], 10 * weights[1]], 0.25, global_sparsity=True
        )
        assert sparsity(masks[0]) > 0.5 > 0.1 > sparsity(masks[1])

    def test_from_values(self, creator, weights):
        masks = creator.create_sparsity_masks(weights, 0.5)
        # signs that would cancel in a mean
        signs = [torch.ones_like(w).reshape(-1) for w in weights]
        for sign in signs:
            sign[::2] = -1.0
        values = [
            w * sign.reshape(w.shape) * mask
            for w, sign, mask in zip(weights, signs, masks, strict=True)
        ]
        found = creator.create_sparsity_masks_from_tensor(values)
        assert all(torch.equal(a, b) for a, b in zip(found, masks, strict=True))

    def test_from_a_threshold(self):
        scores = [torch.tensor([[1.0, 2.0, 3.0, 2.0], [4.0, 4.0, 4.0, 5.0]])]
        found = UnstructuredPruningMaskCreator().create_sparsity_masks_from_threshold(scores, 2.0)
        assert found[0].tolist() == [[0, 0, 1, 0], [1, 1, 1, 1]]
        for creator in (FourBlockMaskCreator(), BlockPruningMaskCreator([1, 4])):
            found = creator.create_sparsity_masks_from_threshold(scores, torch.tensor(2.5))
            assert found[0].tolist() == [[0] * 4, [1] * 4]

    def test_groups_of_tensors(self):
        creator = DimensionSparsityMaskCreator("filter", tensor_group_idxs=[[0, 1]])
        first, second = torch.tensor([[1.0], [2.0]]), torch.tensor([[9.0], [1.0]])
        masks = creator.create_sparsity_masks([first, second], 0.5)
        assert [mask.flatten().tolist() for mask in masks] == [[1, 0], [1, 0]]

    @pytest.mark.parametrize(
        "obj,name",
        [
            ([1, 4], "[1, 4]"), ((2, 3), "[2, 3]"), ("(2, 3)", "[2, 3]"), (" [-1, 4] ", "[-1, 4]"),
            ([0], "filter"), ("[1]", "channel"), ("block", "block"),
        ],
    )  # fmt: skip
    def test_loading(self, obj, name):
        assert str(load_mask_creator(obj)) == name

    def test_loading_a_creator(self, creator):
        assert load_mask_creator(creator) is creator

    @pytest.mark.parametrize("obj", ["blok", 3, None, [], ["a"], "[1, x]", [2]])
    def test_loading_anything_else(self, obj):
        with pytest.raises(ValueError, match=r"a mask creator is|dim must be"):
            load_mask_creator(obj)

    @pytest.mark.parametrize("dim", ["rows", 2, [0, 1], None])
    def test_other_dimensions(self, dim):
        with pytest.raises(ValueError, match="dim must be"):
            DimensionSparsityMaskCreator(dim)


class TestScorers:
    def test_by_name(self):
        params = [nn.Parameter(torch.tensor([-2.0]))]
        assert create_pruning_param_scorer(params, "magnitude").score_parameters()[0].item() == 2.0
        assert isinstance(
            create_pruning_param_scorer(params, "movement"), MovementPruningParamsScorer
        )
        assert {optim.MagnitudePruningParamsScorer, MovementPruningParamsScorer} == set(
            AVALIABLE_SCORER_CLASSES
        )

    def test_other_names(self):
        with pytest.raises(ValueError, match=r"'magnitude' or 'movement', .*did you mean"):
            create_pruning_param_scorer([], "magnitud")


class TestModuleParamPruningMask:
    @pytest.fixture
    def layer(self):
        torch.manual_seed(0)
        return nn.Linear(8, 4)

    def test_defaults(self, layer):
        mask = ModuleParamPruningMask([layer], layer_names=["fc"])
        assert mask.score_type == "magnitude" and not mask.allow_reintroduction
        assert isinstance(mask.mask_creator, UnstructuredPruningMaskCreator)
        assert mask.names == ["fc.weight.sparsity_mask"] and not mask.enabled
        assert isinstance(mask, pruning.ModuleParamPruningMask)

    def test_from_sparsity(self, layer):
        mask = ModuleParamPruningMask([layer])
        mask.enabled = True
        (diff,) = mask.set_param_masks_from_sparsity(0.75)
        assert (diff == -1).sum() == 24 and sparsity(layer.weight) == 0.75
        layer(torch.ones(1, 8)).sum().backward()
        assert torch.equal(layer.weight.grad != 0, mask.param_masks[0] != 0)

    def test_from_weights(self, layer):
        with torch.no_grad():
            layer.weight[:, :3] = 0.0
        mask = ModuleParamPruningMask([layer])
        mask.set_param_masks_from_weights()
        assert torch.equal(mask.param_masks[0], (layer.weight != 0).float())

    def test_from_a_threshold(self, layer):
        threshold = layer.weight.abs().median()
        mask = ModuleParamPruningMask([layer])
        mask.enabled = True
        mask.set_param_masks_from_abs_threshold(threshold)
        assert sparsity(layer.weight) == 0.5
        assert layer.weight[layer.weight != 0].abs().min() > threshold

    def test_other_patterns(self, layer):
        creator = load_mask_creator("block")
        mask = ModuleParamPruningMask([layer], mask_creator=creator)
        mask.enabled = True
        mask.set_param_masks_from_sparsity(0.5)
        runs = (layer.weight != 0).reshape(-1, 4).sum(1)
        assert set(runs.tolist()) == {0, 4} and (runs == 0).sum() == 4

    def test_movement_reintroduces(self, layer):
        mask = ModuleParamPruningMask([layer], score_type="movement")
        mask.enabled = True
        assert mask.allow_reintroduction and mask.store_unmasked
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        seen = set()
        for step in range(6):
            optimizer.zero_grad()
            inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
            (layer(inputs) - 1).square().mean().backward()
            mask.pre_optim_step_update()
            optimizer.step()
            mask.set_param_masks_from_sparsity(0.5)
            assert sparsity(layer.weight) == 0.5
            seen.add(tuple(mask.param_masks[0].flatten().tolist()))
        assert len(seen) > 1

    def test_copies_and_wrong_input(self, layer):
        mask = ModuleParamPruningMask([layer], store_init=True, track_grad_mom=0.9)
        assert copy.deepcopy(mask).names == mask.names
        with pytest.raises(ValueError, match="score_type must be"):
            ModuleParamPruningMask([layer], score_type="size")
        with pytest.raises(RuntimeError, match="no parameter 'wieght'"):
            ModuleParamPruningMask([layer], "wieght")


class TestClassesOfUsers:
    """Subclasses written for SparseML 1.x, with its names of arguments."""

    class Largest(PruningMaskCreator):
        def create_sparsity_masks(self, tensors, sparsity, global_sparsity=False):
            return self.create_sparsity_masks_from_threshold(tensors, sparsity)

        def create_sparsity_masks_from_tensor(self, tensors):
            return self.create_sparsity_masks_from_threshold(tensors, 0.0)

        def create_sparsity_masks_from_threshold(self, tensors, threshold):
            return [(tensor.abs() > threshold).to(tensor.dtype) for tensor in tensors]

    class Pairs(GroupedPruningMaskCreator):
        def group_tensor(self, tensor):
            return tensor.reshape(-1, 2).sum(1)

        def _map_mask_to_tensor(self, grouped_mask, original_tensor_shape):
            return grouped_mask[:, None].expand(-1, 2).reshape(original_tensor_shape)

    def test_abstract(self):
        for clazz in (PruningMaskCreator, GroupedPruningMaskCreator, optim.PruningParamsScorer):
            with pytest.raises(TypeError, match="abstract"):
                clazz()

    def test_a_creator(self):
        layer = nn.Linear(8, 4)
        mask = ModuleParamPruningMask([layer], mask_creator=self.Largest())
        mask.enabled = True
        mask.set_param_masks_from_abs_threshold(0.1)
        assert torch.equal(mask.param_masks[0], (layer.weight != 0).float())
        assert layer.weight[layer.weight != 0].abs().min() > 0.1
        mask.set_param_masks_from_sparsity(0.2)
        mask.set_param_masks_from_weights()
        assert torch.equal(mask.param_masks[0], (layer.weight != 0).float())
        assert load_mask_creator(mask.mask_creator) is mask.mask_creator

    def test_groups(self):
        creator = self.Pairs()
        scores = [torch.tensor([[4.0, 0.0, 1.0, 1.0], [0.0, 3.0, 5.0, 5.0]])]
        (mask,) = creator.create_sparsity_masks(scores, sparsity=0.5)
        assert mask.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
        (mask,) = creator.create_sparsity_masks_from_threshold(scores, 2.5)
        assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
        (mask,) = creator.create_sparsity_masks_from_tensor([torch.tensor([0.0, 0.0, -1.0, 1.0])])
        assert mask.tolist() == [0, 0, 1, 1]

    def test_a_scorer(self, monkeypatch):
        class Negated(optim.PruningParamsScorer):
            @staticmethod
            def get_name():
                return "negated"

            def score_parameters(self):
                return [-param.detach().abs() for param in self._params]

        names = [clazz.get_name() for clazz in AVALIABLE_SCORER_CLASSES]
        assert names == ["magnitude", "movement"]
        assert isinstance(create_pruning_param_scorer([], "magnitude"), optim.PruningParamsScorer)
        layer = nn.Linear(4, 1)
        with pytest.raises(ValueError, match="score_type must be"):
            ModuleParamPruningMask([layer], score_type="negated")
        monkeypatch.setattr(
            "sparseml.legacy.masks.scorers.AVALIABLE_SCORER_CLASSES",
            [*AVALIABLE_SCORER_CLASSES, Negated],
        )
        largest = layer.weight.abs().argmax()
        mask = ModuleParamPruningMask([layer], score_type="negated")
        mask.enabled = True
        mask.set_param_masks_from_sparsity(0.25)
        assert mask.param_masks[0].flatten().argmin() == largest
