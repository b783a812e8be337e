"""Pages, and that their numbers are the run's."""

from __future__ import annotations

import html
import json
import re
import sys
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sparseml.report import Run, RunDirectory, read_run, write_report
from sparseml.report.formats import metric_text, percent_text
from sparseml.report.panels.runtime import chart_script
from sparseml.report.panels.series_panels import line_charts

from .conftest import HOSTILE

VOID = {"meta", "link", "path", "rect", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page; fails on one that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.texts.append(data.strip())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def specs(self) -> dict[str, dict[str, Any]]:
        """Vega-Lite's of every chart, by the key of its figure."""
        return {
            key: json.loads(text)
            for key, text in re.findall(
                r'<figure id="([^"]+)">(?:(?!</figure>).)*?<div class="chart".*?'
                r'<script type="application/json">(.*?)</script>',
                self.text,
                re.DOTALL,
            )
        }

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


@pytest.fixture
def page(run_path: Path) -> Page:
    return Page(write_report(run_path).html.read_text())


def without_scripts(text: str) -> str:
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_needs_nothing_else(runs: Path) -> None:
    for path in (runs, runs / "Magnitude_80"):
        text = write_report(path).html.read_text()
        assert not re.search(r"https?:|@import|url\(|\ssrc=|//cdn", without_scripts(text))
        page = Page(text)
        links = {element.get("href") for element in page.of("link")}
        assert links == {"data:,"}
        assert len(without_scripts(text)) < 300_000
        policy = page.of("meta")[1]["content"] or ""
        assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
        scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        hashes = [b64encode(sha256(one.encode()).digest()).decode() for one in scripts]
        assert policy.endswith("script-src" + "".join(f" 'sha256-{one}'" for one in hashes))


def test_without_vega_the_page_is_written_with_tables(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    chart_script.cache_clear()
    text = write_report(run_path).html.read_text()
    chart_script.cache_clear()
    page = Page(text)
    assert "pip install 'sparseml-next[report]'" in html.unescape(text)
    assert not page.of_class("chart") and not page.of_class("legend")
    assert len(page.of("details")) == 6 and all("open" in one for one in page.of("details"))
    assert "test/accuracy" in page.texts and len(text) < 100_000


def test_numbers_are_the_runs(run: Run, page: Page) -> None:
    texts = page.texts
    for layer in run.result.layers:
        assert layer.name in texts
        assert percent_text(layer.zeros / layer.parameters, 1) in texts
    dense, sparse = run.variant("dense"), run.variant("sparse")
    assert dense is not None
    assert sparse is not None
    accuracy = metric_text("accuracy", sparse.metrics["accuracy"])
    assert accuracy in texts
    assert any(text.startswith(f"Accuracy is {accuracy}") for text in texts)
    assert f"{sparse.parameters:,}" in texts
    assert any(text.startswith(f"{sparse.nonzero:,} (") for text in texts)
    assert any("seed 0" in text for text in texts)
    assert str(run.recipe).strip() in texts


def test_report_json_is_the_run(run_path: Path, run: Run) -> None:
    report = json.loads(write_report(run_path).json.read_text())
    (found,) = report["runs"]
    result = json.loads((run_path / "result.json").read_text())
    assert found["layers"] == result["layers"]
    assert found["variants"] == result["variants"]
    assert found["config"] == {"lr": 0.05, "seed": 0}
    assert found["metrics"]["pruning_steps"] == [8, 12, 16, 20, 24]
    assert found["metrics"]["last"]["train/loss"] == run.metrics.series["train/loss"][-1][1]
    assert found["missing"] == []
    assert report["comparison"] == []


def test_every_chart_has_a_title_a_summary_and_a_table(page: Page) -> None:
    charts = page.of_class("chart")
    assert len(charts) == 6  # accuracy, loss, sparsity, learning rate, layers, latency
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert all("at the end" in (chart["aria-label"] or "") for chart in charts[:4])
    figures = page.of("figure")
    titles = {attributes.get("id") for _, attributes in page.elements}
    assert all(f"{figure['id']}-title" in titles for figure in figures)
    assert len(figures) == len(page.of_class("data")) == 7  # sizes and counts are a table


def test_pruning_updates_are_marked_in_every_chart(page: Page) -> None:
    assert page.texts.count("pruning update (5)") == 4
    marks = [layer for spec in page.specs.values() for layer in spec["layer"]]
    events = [m["data"]["values"] for m in marks if m["mark"].get("strokeDash") == [2, 3]]
    assert events == [[{"x": step} for step in (8, 12, 16, 20, 24)]] * 4


def test_asked_and_reached_sparsity_are_drawn(run: Run, page: Page) -> None:
    bars = page.specs["run-0-layers"]["data"]["values"]
    assert [bar["asked"] for bar in bars] == [0.8, 0.8, None]
    zeros = [layer.zeros / layer.parameters for layer in run.result.layers]
    assert [bar["z"] for bar in bars] == pytest.approx(zeros, rel=1e-5)


def test_latencies_are_drawn_with_their_quartiles(run: Run, page: Page) -> None:
    bars = page.specs["run-0-latency-0"]["data"]["values"]
    assert [bar["m"] for bar in bars] == ["dense", "sparse"]
    for bar in bars:
        (taken,) = run.result.variants[bar["m"]].latency
        drawn = [taken.lower_quartile_ms, taken.median_ms, taken.upper_quartile_ms]
        assert [bar["low"], bar["ms"], bar["high"]] == pytest.approx(drawn, rel=1e-5)
        assert f"{taken.rounds} rounds after 2 to warm up" in bar["tip"]


def test_identifiers_are_unique(runs: Path) -> None:
    page = Page(write_report(runs).html.read_text())
    ids = Counter(a["id"] for _, a in page.elements if a.get("id"))
    assert max(ids.values()) == 1
    links = [link["href"] for link in page.of("a")]
    assert all((link or "").removeprefix("#") in ids for link in links)


def test_several_runs_side_by_side(runs: Path) -> None:
    files = write_report([runs / "Magnitude_80", runs / "GlobalMagnitude_90"])
    assert files.html == runs / "report.html"
    page = Page(files.html.read_text())
    assert "2 runs compared" in page.texts
    for name in ("Magnitude_80", "GlobalMagnitude_90"):
        run = read_run(runs / name)
        assert run.name in page.texts
        assert run.final is not None
        assert metric_text("accuracy", run.final.metrics["accuracy"]) in page.texts
    assert {
        "Accuracy over zeros",
        "Accuracy over size",
        "Accuracy over steps",
        "Loss over steps",
    } <= set(page.texts)
    report = json.loads(files.json.read_text())
    assert [run["name"] for run in report["runs"]] == ["Magnitude 80%", "GlobalMagnitude 90%"]
    assert report["comparison"]
    assert "| Magnitude 80% |" in files.markdown.read_text()


def test_where_a_report_goes(runs: Path, tmp_path: Path) -> None:
    other = RunDirectory.start(tmp_path / "elsewhere" / "run").path
    with pytest.raises(ValueError, match="different folders"):
        write_report([runs, other])
    assert write_report([runs, other], tmp_path / "out").html == tmp_path / "out" / "report.html"
    assert write_report([other, other]).html == other / "report.html"


def test_texts_of_a_run_cannot_break_the_page(tmp_path: Path) -> None:
    for number in range(2):
        run = RunDirectory.start(
            tmp_path / str(number), HOSTILE, HOSTILE, config={HOSTILE: HOSTILE}
        )
        run.write_recipe(HOSTILE)
        run.metrics().log_scalars(HOSTILE, {"loss": 1.0}, step=1)
        run.write_result(
            {"sparse": {"metrics": {HOSTILE: 0.5}, "description": HOSTILE}},
            layers=[{"name": HOSTILE, "parameters": 3, "zeros": 1, "kind": HOSTILE}],
            notes=[HOSTILE],
        )
    for path in (tmp_path, tmp_path / "0"):
        files = write_report(path)
        page = Page(files.html.read_text())
        assert not page.of("img")
        assert all(set(script) <= {"type", "id"} for script in page.of("script"))
        assert len(re.findall("<script>", without_scripts(files.html.read_text()))) == 0
        assert "hacked" not in "".join(page.open)
        rows = [line for line in files.markdown.read_text().splitlines() if "onerror" in line]
        assert any(re.search(r"^\| .*\\\| pipe line", row) for row in rows)


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    RunDirectory.start(tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    files = write_report(tmp_path / "bare")
    page = Page(files.html.read_text())
    assert "What is missing" in page.texts
    for name in ("config.json", "recipe.yaml", "metrics.jsonl", "result.json"):
        assert any(text.startswith(f"{name} is missing") for text in page.texts)
        assert f"- {name} is missing" in files.markdown.read_text()
    assert not page.of_class("chart")
    assert write_report([tmp_path / "bare", tmp_path / "bare"]).html.exists()


def test_planned_updates_stand_in_for_logged_ones(run_path: Path) -> None:
    file = run_path / "metrics.jsonl"
    lines = [line for line in file.read_text().splitlines() if "ParamPruning" not in line]
    file.write_text("\n".join(lines) + "\n")
    page = Page(write_report(run_path).html.read_text())
    assert page.texts.count("pruning update (5)") == 4


def test_other_metrics_get_charts_of_their_own(run_path: Path) -> None:
    log = RunDirectory(run_path).metrics()
    for step in range(3):
        log.log_scalar("gradient norm", 2.0 * step, step=step)
    page = Page(write_report(run_path).html.read_text())
    assert "Other metrics (1)" in page.texts
    assert len(page.of_class("chart")) == 7


def colours(scheme: str) -> dict[str, str]:
    from sparseml.report import rendering

    css = (Path(rendering.__file__).parent / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    block = blocks[0] if scheme == "light" else blocks[1]
    return dict(re.findall(r"--(\w+): (#\w{6})", block))


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrasts(scheme: str) -> None:
    """WCAG 2 AA: 4.5 for text, 3 for what is drawn."""
    found = colours(scheme)
    for background in ("bg", "panel"):
        for text in ("fg", "muted", "link", "gain", "loss"):
            assert contrast(found[text], found[background]) >= 4.5
    for series in range(8):
        assert contrast(found[f"s{series}"], found["bg"]) >= 3


def test_equal_series_are_drawn_once_and_on_one_scale(run_path: Path) -> None:
    log = RunDirectory(run_path).metrics()
    for step in (8, 16, 24, 32):
        for group in range(1, 4):
            rate = 0.05 - step / 1000
            log.log_scalar(f"Rate/lr/ParamGroup{group}/lr", rate, step=step)
        log.log_scalar("epoch/sparsity_percent", 80.0, step=step)
    charts = {chart.title: chart for chart in line_charts(read_run(run_path), "key")[0]}
    labels = [line.label for line in charts["Learning rate"].lines]
    assert len(labels) == 2  # the modifier's own, and the three that are equal
    assert labels[1] == "Rate/lr/ParamGroup1/lr, Rate/lr/ParamGroup2/lr and Rate/lr/ParamGroup3/lr"
    values = [y for line in charts["Sparsity"].lines for _, y in line.points]
    assert max(values) <= 1.0
    assert charts["Sparsity"].y_text(0.8) == "80%"


def test_a_table_of_many_runs_hides_nothing(tmp_path: Path) -> None:
    for number in range(30):
        run = RunDirectory.start(tmp_path / str(number), f"run {number}")
        size = {"dense": 4000, "zstd": 100 * (30 - number)}
        run.write_result({"sparse": {"metrics": {"accuracy": 0.5}, "storage": size}})
    text = write_report(tmp_path).html.read_text()
    table = re.search(r'<table class="data runs".*?</table>', text, re.DOTALL)
    assert table is not None
    assert table[0].count('<a href="#run-') == 30
    assert "scroll" not in table[0]


def test_no_html_of_names_is_left_in_markdown(tmp_path: Path) -> None:
    name = "a<img src=x onerror=hacked=1>"
    with RunDirectory.start(tmp_path / "run", name=name, config={"tag": "<b>&"}) as run:
        run.write_recipe("# ```\n# <script>\npruning_modifiers: []\n")
    text = write_report(tmp_path / "run").markdown.read_text()
    outside, recipe, rest = text.partition("````yaml")
    assert "<img" not in text and "&lt;img" in outside
    assert recipe and "<script>" in rest and "tag: &lt;b>&amp;" in rest.partition("\n````\n")[2]
