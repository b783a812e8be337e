"""Pages in a real browser: no console error, charts that respond, narrow and dark screens."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparseml.report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser; looked for {', '.join(NAMES)}"
)

# A window cannot be made as narrow as a phone, but a frame can.
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<iframe width="{width}" height="900" style="border:0" srcdoc="{page}"></iframe>"""
# put before everything else, so that no error goes unseen
LISTEN = "<script>window.faults=[];addEventListener('error',e=>faults.push(e.message))</script>"
# run when the page is whole; what it finds ends up as an attribute, which --dump-dom shows
PROBE = """<script>addEventListener('load', () => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const press = (element, key) => element.dispatchEvent(
    new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
  const found = {faults, width: innerWidth, content: document.documentElement.scrollWidth};

  const plot = document.querySelector('.plot');
  const box = plot.getBoundingClientRect();
  const told = () => plot.getAttribute('aria-valuetext');
  found.role = plot.getAttribute('role');
  found.plot = [box.width, box.height];
  const at = {clientX: box.left + 1, clientY: box.top + 9, bubbles: true};
  plot.dispatchEvent(new PointerEvent('pointermove', at));
  found.pointed = plot.querySelector('.readout').textContent;
  plot.focus();
  press(plot, 'Home'); found.first = told();
  press(plot, 'ArrowRight'); found.second = told();
  press(plot, 'End'); found.last = told();
  press(plot, 'Escape'); found.escaped = plot.querySelector('.readout') === null;

  const tip = document.getElementById('tip');
  const rows = all('tr[data-tip]', all('.bars').pop());
  rows[0].focus(); found.tip = tip.textContent;
  press(rows[0], 'ArrowDown'); found.moved = document.activeElement === rows[1];
  document.activeElement.blur(); found.hidden = tip.hidden;

  const style = getComputedStyle(document.body);
  found.background = style.backgroundColor; found.colour = style.color;
  const texts = all('.x-axis span, .y-axis span, td, th, small');
  found.font = Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize)));
  found.overlaps = all('.x-axis').filter(axis => {
    const labels = [...axis.children].map(e => e.getBoundingClientRect());
    return labels.some((label, i) => i && label.left < labels[i - 1].right);
  }).length;
  found.lines = all('.plot path.line').filter(path => path.getTotalLength() > 0).length;
  parent.document.documentElement.dataset.found = JSON.stringify(found);
});</script>"""


def browse(page: Path, folder: Path, *flags: str, width: int = 1000) -> tuple[dict[str, Any], str]:
    """Open a page in a frame, with a probe in it: what the probe found, and the console."""
    text = page.read_text().replace("<head>", f"<head>{LISTEN}")
    text = text.replace("</body>", f"{PROBE}</body>")
    framed = folder / "framed.html"
    framed.write_text(FRAME.format(width=width, page=html.escape(text)))
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(BROWSER), *FLAGS, profile, *flags, "--dump-dom", framed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, f"the probe did not end: {done.stderr[-2000:]}"
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(found[1])), console


@pytest.fixture(scope="module")
def pages(made_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run in full, and two side by side."""
    out = tmp_path_factory.mktemp("pages")
    return {
        "one": write_report(made_runs / "Magnitude_80", out / "one").html,
        "two": write_report(made_runs, out / "two").html,
    }


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("which", ["one", "two"])
def test_pages_work(pages: dict[str, Path], which: str, width: int, tmp_path: Path) -> None:
    found, console = browse(pages[which], tmp_path, width=width)
    assert (found["faults"], console) == ([], "")
    assert found["width"] == width
    assert found["content"] <= width, "the page has to be scrolled sideways"
    assert found["plot"][0] > 0.7 * min(width, 400)
    assert found["plot"][1] > 150
    assert found["lines"] >= 3
    assert found["font"] >= 11
    assert found["overlaps"] == 0, "labels of an axis run into each other"
    assert found["background"] == "rgb(255, 255, 255)"


def test_charts_respond_to_pointer_and_keys(pages: dict[str, Path], tmp_path: Path) -> None:
    found, _ = browse(pages["one"], tmp_path)
    assert found["role"] == "slider"
    assert re.fullmatch(r"step 8\ntest/accuracy: [\d.]+%", found["pointed"])
    assert re.fullmatch(r"step 8: test/accuracy: [\d.]+%", found["first"])
    assert found["second"].startswith("step 16: ")
    assert found["last"].startswith("step 32: ")
    assert found["escaped"]
    assert "rounds after 2 to warm up" in found["tip"]
    assert found["moved"]
    assert found["hidden"]


def test_dark_screens(pages: dict[str, Path], tmp_path: Path) -> None:
    found, console = browse(pages["two"], tmp_path, "--blink-settings=preferredColorScheme=0")
    assert console == ""
    assert found["background"] == "rgb(13, 17, 23)"
    assert found["colour"] == "rgb(230, 237, 243)"


def test_the_probe_sees_faults(tmp_path: Path, pages: dict[str, Path]) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(pages["one"].read_text().replace("<main", "<script>missing()</script><main"))
    found, console = browse(broken, tmp_path)
    assert "missing is not defined" in found["faults"][0]
    assert "missing is not defined" in console
