"""``sparseml report``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sparseml.cli import main
from sparseml.report import RunDirectory


def invoke(*arguments: str) -> Result:
    """Run the command; a traceback fails the test."""
    result = CliRunner().invoke(main, ["report", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two runs in the folder ``runs``."""
    monkeypatch.chdir(tmp_path)
    for name, accuracy in (("a", 0.9), ("b", 0.75)):
        with RunDirectory.start(tmp_path / "runs" / name, seed=1) as run:
            run.write_result({"sparse": {"metrics": {"accuracy": accuracy}}})
    return tmp_path / "runs"


def test_one_run(runs: Path) -> None:
    result = invoke("runs/a")
    assert (result.exit_code, result.output) == (0, "runs/a/report.html\n")
    written = {file.name for file in (runs / "a").glob("report.*")}
    assert written == {"report.html", "report.json", "report.md"}
    assert "Accuracy is 90.00%." in (runs / "a" / "report.md").read_text()


def test_several_runs_and_a_folder_of_runs(runs: Path) -> None:
    texts = []
    for arguments in (["runs/a", "runs/b"], ["runs"], [str(runs), "runs/b"]):
        assert invoke(*arguments).output == "runs/report.html\n"
        texts.append((runs / "report.md").read_text())
    assert "90.00%" in texts[0]
    assert "75.00%" in texts[0]
    assert texts[0] == texts[1] == texts[2]


def test_another_folder(runs: Path, tmp_path: Path) -> None:
    assert invoke("runs", "--out", "pages/new").output == "pages/new/report.html\n"
    assert not (runs / "report.html").exists()


def test_output_for_programs(runs: Path) -> None:
    report = json.loads(invoke("runs", "--json").output)
    found = [run["variants"]["sparse"]["metrics"] for run in report["runs"]]
    assert found == [{"accuracy": 0.9}, {"accuracy": 0.75}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "no such folder"),
        (["runs/a/empty"], "no run.json"),
        (["runs/a/run.json"], "is a file"),
        (["runs/a", "elsewhere"], "different folders"),
        (["runs", "--out", "runs/a/run.json"], "runs/a/run.json"),
        ([], "Missing argument"),
    ],
)
def test_wrong_input_is_told_in_one_line(runs: Path, arguments: list[str], said: str) -> None:
    RunDirectory.start("elsewhere")
    (runs / "a" / "empty").mkdir()
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_errors_for_programs(runs: Path) -> None:
    result = invoke("missing", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["kind"] == "NotARunError"


def test_without_the_extra(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseml.report import rendering

    rendering._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = invoke("runs")
    assert result.exit_code == 2
    assert "pip install 'sparseml-next[report]'" in result.stderr


def test_no_torch_is_needed(runs: Path) -> None:
    code = (
        "import sys\nfrom sparseml.cli import main\n"
        "main(['report', 'runs'], standalone_mode=False)\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
