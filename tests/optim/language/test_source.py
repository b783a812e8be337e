from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparseml.optim import RecipeError, RecipeValueError, load_recipe_yaml_str
from sparseml.optim.language.source import MAX_BYTES, read_source
from sparseml.optim.recipe import load_recipe

TEXT = "modifiers:\n  - !EpochRangeModifier\n    start_epoch: 0\n    end_epoch: 3\n"


@pytest.mark.parametrize("name", ["r.yaml", "r.yml", "r.YAML", "a.b.yaml"])
def test_yaml_files_are_read_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(f"---\n{TEXT}---\n")
    assert load_recipe_yaml_str(str(path)) == load_recipe_yaml_str(path) == f"---\n{TEXT}---\n"


@pytest.mark.parametrize("mark", ["---", "+++"])
@pytest.mark.parametrize("before", ["", "\n  \n", "  "])
def test_markdown_files_hold_front_matter(tmp_path: Path, mark: str, before: str) -> None:
    path = tmp_path / "r.md"
    path.write_text(f"{before}{mark}\n{TEXT}{mark} \n\n# Title\n\n---\n")
    source = read_source(path)
    assert source.text == TEXT
    assert source.first_line == before.count("\n") + 2


@pytest.mark.parametrize("text", ["", "# Title\n", f"---\n{TEXT}", f"---\n{TEXT}+++\n"])
def test_markdown_without_front_matter(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.md"
    path.write_text(text)
    with pytest.raises(RuntimeError, match="no recipe"):
        load_recipe_yaml_str(path)


BEFORE = {
    "nothing": "",
    "a comment": "<!--\nCopyright (c) 2021 - present / Somebody. All Rights Reserved.\n-->\n\n",
    "a title": "# ResNet-50, pruned\n\n",
    "paragraphs": "A recipe.\n\n" + "It says much - or little. a: 1\n" * 2000,
    "a rule of another kind": "Title\n+++\n\n",
    "indented": "   ",
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["---", "+++"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_anything_may_come_before_a_recipe(
    tmp_path: Path, before: str, mark: str, end: str
) -> None:
    if mark in before:
        pytest.skip("that would be the first delimiter")
    text = f"{before}{mark}\n{TEXT}  {mark} \n\n# After\n\n---\nmore\n---\n".replace("\n", end)
    path = tmp_path / "r.md"
    path.write_bytes(text.encode())
    for source in (read_source(path), read_source(text)):
        assert source.text == TEXT
        assert source.first_line == before.count("\n") + 2


def test_errors_count_lines_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    path.write_text(
        "<!-- licence -->\n# Title\n\n---\na: 1\nmodifiers:\n    - !NoSuch {a: 1}\n---\n"
    )
    with pytest.raises(RecipeError, match=r"r\.md:7: unknown modifier !NoSuch") as info:
        load_recipe(path)
    assert info.value.line == 7


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "---\na: 1\n", "a: '--- no'\nb: --- c\n"])
def test_without_a_pair_of_delimiters_text_is_plain_yaml(text: str) -> None:
    assert load_recipe_yaml_str(text) == text


def test_raw_text() -> None:
    assert load_recipe_yaml_str(TEXT) == TEXT
    assert load_recipe_yaml_str(f"---\n{TEXT}---\nwords") == TEXT
    assert load_recipe_yaml_str(f"---\n{TEXT}") == f"---\n{TEXT}"
    assert load_recipe_yaml_str("a: 1\rb: 2") == "a: 1\rb: 2"


def test_variables_can_be_given_while_reading() -> None:
    assert load_recipe_yaml_str("a: 1\nb: 2\n", a=3) == "a: 3\nb: 2\n"


@pytest.mark.parametrize("path", ["recipe.txt", "modifiers", "", "https://a.b/c", "a: 1", "yaml"])
def test_other_paths(path: str) -> None:
    with pytest.raises(ValueError, match=r"must be the path of a \.yaml") as info:
        load_recipe_yaml_str(path)
    assert isinstance(info.value, RecipeError)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("recipes/foo.yaml", "recipes/foo.yamlLACKS; did you mean 'food.yaml'?"),
        ("recipes/other.md", "recipes/other.mdLACKS"),
        ("none/a.yaml", "none/a.yamlLACKS; there is no folder 'none'"),
        ("~/recipes/fod.yml", "HOME/recipes/fod.ymlLACKS; did you mean 'food.yaml'?"),
        ("recipes/timm/one_shot/cap/vit.yaml", "recipes/timm/one_shot/cap/vit.yamlLACKS; did "
            "you mean 'recipe:timm/one_shot/cap/vit'?"),
        ("recipes", "recipes: this is a folder; MUST, one in it is 'food.yaml'"),
        ("~/recipes/", "HOME/recipes/: this is a folder; MUST, one in it is 'food.yaml'"),
        ("empty", "empty: this is a folder; MUST, there is none in it"),
        ("recipes/food", "recipes/foodNOWHERE; did you mean 'food.yaml'?"),
        ("notes.txt", "notes.txt: MUST"),
        ("modifiers: []", "MUST, or text of several lines; found 'modifiers: []'"),
        ("https://a.b/c.txt", "MUST, or text of several lines; found 'https://a.b/c.txt'"),
    ],
)  # fmt: skip
def test_paths_that_lead_nowhere(
    path: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("recipes", "empty"):
        (tmp_path / folder).mkdir()
    for file in ("recipes/food.yaml", "notes.txt"):
        (tmp_path / file).write_text(TEXT)
    with pytest.raises(RecipeError) as info:
        load_recipe_yaml_str(path)
    text = text.replace("LACKS", ": the recipe does not exist")
    text = text.replace("NOWHERE", ": MUST, and there is no such file")
    text = text.replace("MUST", "a recipe must be the path of a .yaml, .yml or .md file")
    assert str(info.value) == text.replace("HOME", str(tmp_path))


@pytest.mark.parametrize("value", [None, 3, b"a: 1\n", ["a"], object()])
def test_what_is_neither_text_nor_path(value: Any) -> None:
    with pytest.raises(ValueError, match="must be text or a path, found"):
        load_recipe_yaml_str(value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as info:
        load_recipe_yaml_str(str(tmp_path / "no.yaml"))
    assert isinstance(info.value, RecipeError)
    assert info.value.file == str(tmp_path / "no.yaml")
    assert str(info.value).startswith(f"{tmp_path / 'no.yaml'}: the recipe does not exist")


@pytest.mark.parametrize("stub", ["zoo:cv/classification/resnet", "zoo:a.yaml"])
def test_the_model_zoo_is_gone(stub: str) -> None:
    with pytest.raises(ValueError, match=r"shut down; give the path of a local \.yaml or \.md"):
        load_recipe_yaml_str(stub)


def test_folders_binary_and_large_files(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(RecipeValueError, match="folder or device"):
        read_source(tmp_path / "folder.yaml")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(RecipeValueError, match="not text in UTF-8: invalid start byte at byte 128"):
        read_source(tmp_path / "binary.yaml")
    with open(tmp_path / "large.yaml", "wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(RecipeValueError, match=f"50000000 bytes, at most {MAX_BYTES}"):
        read_source(tmp_path / "large.yaml")


def test_byte_order_mark_and_other_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert read_source(path).text == TEXT


def test_home_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r.yaml").write_text(TEXT)
    assert load_recipe_yaml_str("~/r.yaml") == TEXT
