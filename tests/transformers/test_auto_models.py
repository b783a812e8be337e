"""Models in folders with a recipe come back with the structure that it has given them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.optim import RecipeError
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.units.saved import save_shrunk

transformers = pytest.importorskip("transformers")

from sparseml.transformers import (  # noqa: E402
    SparseAutoConfig,
    SparseAutoModel,
    SparseAutoModelForCausalLM,
    load_structure,
    load_weights,
)

SIZES: dict[str, dict[str, Any]] = {
    "bert": {
        "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "num_hidden_layers": 4,
    },
    "distilbert": {"dim": 8, "n_heads": 2, "hidden_dim": 12, "n_layers": 4},
    "gpt2": {"n_embd": 8, "n_head": 2, "n_positions": 16, "n_layer": 4},
    "t5": {"d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 12, "num_layers": 4},
}  # fmt: skip
LAYERS = {
    "bert": ["bert.encoder.layer.0", "bert.encoder.layer.2"],
    "distilbert": ["distilbert.transformer.layer.1", "distilbert.transformer.layer.3"],
    "gpt2": ["transformer.h.0", "transformer.h.3"],
    "t5": ["encoder.block.1", "decoder.block.2"],
}
TASKS = {
    "bert": "text_classification", "distilbert": "question_answering", "gpt2": "text_generation",
}  # fmt: skip
KINDS = {
    "text_classification": "AutoModelForSequenceClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "masked_language_modeling": "AutoModelForMaskedLM",
    "token_classification": "AutoModelForTokenClassification",
    "text_generation": "AutoModelForCausalLM",
}
IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 11, 12]])


def build(kind: str, auto: str) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=20, pad_token_id=0, bos_token_id=1, eos_token_id=2, **SIZES[kind]
    )
    return getattr(transformers, auto).from_config(config).eval()


def outputs(model: nn.Module) -> torch.Tensor:
    inputs = {"input_ids": IDS}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = IDS
    with torch.no_grad():
        found = model(**inputs)
    return found["start_logits"] if "start_logits" in found else found["logits"]


def removing(layers: list[str], **fields: Any) -> str:
    given = "".join(f"    {key}: {value}\n" for key, value in fields.items())
    return f"modifiers:\n  - !LayerPruningModifier\n    layers: {layers}\n{given}"


def saved(model: Any, folder: Any, recipe: str, epoch: float = math.inf) -> str:
    ScheduledModifierManager.from_yaml(recipe).apply_structure(model, epoch)
    model.save_pretrained(folder)
    (folder / "recipe.yaml").write_text(recipe)
    return str(folder)


@pytest.mark.parametrize("kind", TASKS)
def test_without_layers(kind: str, tmp_path: Any) -> None:
    task = TASKS[kind]
    model = build(kind, KINDS[task])
    whole = outputs(model)
    folder = saved(model, tmp_path, removing(LAYERS[kind]))
    found = getattr(SparseAutoModel, f"{task}_from_pretrained")(folder, model_type="model")
    assert set(found.state_dict()) == set(model.state_dict())
    assert not found.training and (outputs(model) != whole).any()
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=0)


def test_a_plain_function_for_any_model(tmp_path: Any) -> None:
    model = build("t5", "AutoModelForSeq2SeqLM")
    folder = saved(model, tmp_path, removing(LAYERS["t5"]))
    other = build("t5", "AutoModelForSeq2SeqLM")
    load_structure(other, folder)
    assert set(other.state_dict()) == set(model.state_dict())
    with torch.no_grad():
        other.shared.weight.zero_()
    load_weights(other, folder)
    torch.testing.assert_close(outputs(other), outputs(model), rtol=0, atol=0)


def test_loading_twice_changes_nothing(tmp_path: Any) -> None:
    folder = saved(build("bert", KINDS[TASKS["bert"]]), tmp_path, removing(LAYERS["bert"]))
    model = SparseAutoModel.text_classification_from_pretrained(folder)
    before = outputs(model)
    layers = [str(layer) for layer in model.bert.encoder.layer]
    load_weights(model, folder)
    assert [str(layer) for layer in model.bert.encoder.layer] == layers
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fields", "epoch", "out"),
    [
        ({"start_epoch": 2.0}, 1.0, False),  # a checkpoint from before
        ({"start_epoch": 2.0}, 2.0, True),
        ({"start_epoch": 2.0, "end_epoch": 3.0}, 2.5, True),  # one from its own time
        ({"start_epoch": 2.0, "end_epoch": 3.0}, math.inf, False),
        ({"start_step": 7}, math.inf, True),
    ],
)
def test_the_weights_tell_what_was_out(
    fields: dict[str, Any], epoch: float, out: bool, tmp_path: Any
) -> None:
    model = build("bert", KINDS["token_classification"])
    folder = saved(model, tmp_path, removing(LAYERS["bert"], **fields), epoch)
    found = SparseAutoModel.token_classification_from_pretrained(folder)
    assert ("bert.encoder.layer.0.output.dense.weight" not in found.state_dict()) is out
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=0)


def test_smaller_layers(tmp_path: Any) -> None:
    model = build("bert", KINDS["text_classification"])
    first = model.bert.encoder.layer[1]
    for layer, dim in ((first.intermediate.dense, 0), (first.output.dense, 1)):
        layer.weight.data = layer.weight.data.narrow(dim, 0, 5).clone()
    first.intermediate.dense.bias.data = first.intermediate.dense.bias.data[:5].clone()
    folder = saved(model, tmp_path, removing(LAYERS["bert"]))
    found = SparseAutoModel.text_classification_from_pretrained(folder)
    assert found.bert.encoder.layer[1].intermediate.dense.out_features == 5
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=0)


def test_a_new_head_on_an_encoder(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = build("bert", "AutoModel")
    folder = saved(model, tmp_path, removing(["re:.*encoder.layer.0", "re:.*encoder.layer.2"]))
    found = SparseAutoModel.text_classification_from_pretrained(folder, num_labels=3)
    assert found.classifier.out_features == 3
    own, given = found.bert.state_dict(), model.state_dict()
    assert set(own) == set(given) and all((own[key] == given[key]).all() for key in own)
    assert "has no weights for classifier.bias, classifier.weight" in caplog.text


def test_many_files_and_old_formats(tmp_path: Any) -> None:
    model = build("gpt2", KINDS["text_generation"])
    folder = saved(model, tmp_path / "a", removing(LAYERS["gpt2"]))
    model.save_pretrained(folder, max_shard_size="2KB")
    (tmp_path / "a" / "model.safetensors").unlink(missing_ok=True)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 2
    old = tmp_path / "b"
    old.mkdir()
    torch.save(model.state_dict(), old / "pytorch_model.bin")
    for name in ("config.json", "recipe.yaml"):
        (old / name).write_bytes((tmp_path / "a" / name).read_bytes())
    for one in (folder, str(old)):
        found = SparseAutoModelForCausalLM.from_pretrained(one)
        torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=0)


def test_causal_models_generate_as_before(tmp_path: Any) -> None:
    model = build("gpt2", KINDS["text_generation"])
    model.generation_config.max_new_tokens = 6
    folder = saved(model, tmp_path, removing(LAYERS["gpt2"]))
    before = torch.nn.Linear.reset_parameters, torch.nn.init.kaiming_uniform_
    found = SparseAutoModelForCausalLM.from_pretrained(folder)
    assert before == (torch.nn.Linear.reset_parameters, torch.nn.init.kaiming_uniform_)
    assert found.generation_config.max_new_tokens == 6
    told, wanted = (one.generate(IDS, do_sample=False, pad_token_id=0) for one in (found, model))
    assert told.shape[1] > IDS.shape[1] and (told == wanted).all()


def test_a_recipe_instead_of_that_of_the_folder(tmp_path: Any) -> None:
    model = build("gpt2", KINDS["text_generation"])
    recipe = removing(LAYERS["gpt2"])
    folder = saved(model, tmp_path, recipe)
    (tmp_path / "recipe.yaml").unlink()
    found = SparseAutoModelForCausalLM.from_pretrained(folder, recipe=recipe)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=0)


@pytest.mark.parametrize("task", KINDS)
def test_other_recipes_leave_it_to_transformers(task: str, tmp_path: Any) -> None:
    kind = "gpt2" if task == "text_generation" else "bert"
    model = build(kind, KINDS[task])
    model.save_pretrained(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        "modifiers:\n  - !GMPruningModifier\n    params: ['re:.*weight']\n    init_sparsity: 0.1\n"
        "    final_sparsity: 0.5\n    start_epoch: 0.0\n    end_epoch: 2.0\n"
        "    update_frequency: 1.0\n"
    )
    load = getattr(SparseAutoModel, f"{task}_from_pretrained")
    # what scripts of SparseML 1.x give
    found = load(
        str(tmp_path), model_type="student", config=SparseAutoConfig.from_pretrained(tmp_path),
        from_tf=False, cache_dir=None, revision="main", use_auth_token=None,
    )  # fmt: skip
    assert type(found) is type(model)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=0)


@pytest.mark.parametrize("task", KINDS)
def test_students_and_teachers(task: str, tmp_path: Any) -> None:
    kind = "gpt2" if task == "text_generation" else "bert"
    build(kind, KINDS[task]).save_pretrained(tmp_path)
    load = getattr(SparseAutoModel, f"{task}_from_pretrained_distil")
    student, teacher = load(str(tmp_path), str(tmp_path), {"dtype": torch.float64}, {})
    assert student is not teacher and type(student) is type(teacher)
    assert student.dtype == torch.float64 and teacher.dtype == torch.float32
    for word in ("self", "disable", None):
        assert load(str(tmp_path), word, model_kwargs={}, teacher_kwargs={})[1] == word


def test_shrunk_models(tmp_path: Any) -> None:
    model = build("bert", KINDS["text_classification"])
    ScheduledModifierManager.from_yaml(removing(LAYERS["bert"])).apply_structure(model, math.inf)
    first = model.bert.encoder.layer[1]
    first.attention.self.num_attention_heads, first.attention.self.all_head_size = 1, 4
    for layer in (first.attention.self.query, first.attention.self.key, first.attention.self.value):
        layer.weight.data, layer.bias.data = layer.weight.data[:4], layer.bias.data[:4]
    first.attention.output.dense.weight.data = first.attention.output.dense.weight.data[:, :4]
    save_shrunk(model, tmp_path)
    (tmp_path / "recipe.yaml").write_text(removing(LAYERS["bert"]))
    found = SparseAutoModel.text_classification_from_pretrained(str(tmp_path))
    assert found.bert.encoder.layer[1].attention.self.num_attention_heads == 1
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=0)


class TestErrors:
    def test_a_broken_recipe_is_named(self, tmp_path: Any) -> None:
        build("bert", KINDS["text_classification"]).save_pretrained(tmp_path)
        (tmp_path / "recipe.yaml").write_text("modifiers:\n  - !LayerPruning\n    layers: [a]\n")
        with pytest.raises(RecipeError, match=r"recipe\.yaml.*LayerPruning"):
            SparseAutoModel.text_classification_from_pretrained(str(tmp_path))

    def test_no_weights(self, tmp_path: Any) -> None:
        model = build("bert", KINDS["text_classification"])
        saved(model, tmp_path, removing(LAYERS["bert"]))
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="holds no weights: neither model"):
            SparseAutoModel.text_classification_from_pretrained(str(tmp_path))

    def test_weights_of_another_model(self, tmp_path: Any) -> None:
        saved(build("gpt2", KINDS["text_generation"]), tmp_path, removing(LAYERS["gpt2"]))
        bert = build("bert", KINDS["text_classification"])
        recipe = removing(LAYERS["bert"])
        with pytest.raises(ValueError, match=r"has no weights for bert.* of BertForSequenceC"):
            load_weights(bert, tmp_path, recipe)

    @pytest.mark.parametrize("labels", [1, 3])
    def test_weights_of_other_labels(self, labels: int, tmp_path: Any) -> None:
        model = build("bert", KINDS["text_classification"])
        folder = saved(model, tmp_path, removing(LAYERS["bert"]))
        with pytest.raises(ValueError, match=r"classifier.weight .* shape .*\(2, 8\): .*labels"):
            SparseAutoModel.text_classification_from_pretrained(folder, num_labels=labels)

    def test_weights_of_another_size(self, tmp_path: Any) -> None:
        model = build("bert", KINDS["text_classification"])
        folder = saved(model, tmp_path, removing(LAYERS["bert"]))
        with pytest.raises(ValueError, match="does not fit BertForSequenceClassification: "):
            SparseAutoModel.text_classification_from_pretrained(folder, intermediate_size=6)

    def test_a_layer_that_the_model_has_not(self, tmp_path: Any) -> None:
        saved(build("bert", KINDS["text_classification"]), tmp_path, removing(LAYERS["bert"]))
        with pytest.raises(RuntimeError, match="transformer"):
            SparseAutoModel.text_classification_from_pretrained(
                str(tmp_path), recipe=removing(LAYERS["gpt2"])
            )

    def test_keywords_that_cannot_be_used(self, tmp_path: Any) -> None:
        model = build("bert", KINDS["text_classification"])
        folder = saved(model, tmp_path, removing(LAYERS["bert"]))
        with pytest.raises(ValueError, match=r"config.json: device_map cannot be used for it"):
            SparseAutoModel.text_classification_from_pretrained(folder, device_map="cpu")

    def test_positional_arguments(self, tmp_path: Any) -> None:
        with pytest.raises(ValueError, match="by keyword"):
            SparseAutoModelForCausalLM.from_pretrained(str(tmp_path), 3)
