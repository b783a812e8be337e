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

from sparseml.report import RunDirectory, write_report

from .conftest import HOSTILE

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=6000",
)  # fmt: skip
pytest.importorskip("vl_convert", reason="without it pages have no charts")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser; looked for {', '.join(NAMES)}"
)

# A window cannot be made as narrow as a phone, but a frame can.
FRAME = '<iframe width="{width}" height="900" style="border:0" srcdoc="{page}"></iframe>'
# put before everything else, so that no error goes unseen
LISTEN = "<script>window.faults=[];addEventListener('error',e=>faults.push(e.message))</script>"
# run when all charts are drawn; what it finds ends up as an attribute, which --dump-dom shows
PROBE = """<script>
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const wait = (time = 50) => new Promise((done) => setTimeout(done, time));
const overlapping = (axis) => {
  const labels = all('.role-axis-label text', axis).filter(
    (e) => e.getAttribute('opacity') !== '0' && !e.getAttribute('transform').includes('rotate'));
  const boxes = labels.map((e) => e.getBoundingClientRect()).sort((a, b) => a.left - b.left);
  return boxes.some((box, i) => i && box.left < boxes[i - 1].right && box.top < boxes[i - 1].bottom
    && boxes[i - 1].top < box.bottom);
};
const cut = (svg) => {
  const frame = svg.getBoundingClientRect();
  const boxes = all('text', svg).map((e) => e.getBoundingClientRect());
  return boxes.some((box) => box.left < frame.left - 1 || box.right > frame.right + 1);
};
async function probe() {
  const due = all('.chart').filter((e) => !e.closest('details:not([open])'));
  while (!due.every((e) => e.querySelector('svg.marks'))) await wait();
  const found = {faults, width: innerWidth, content: document.documentElement.scrollWidth};
  const charts = all('svg.marks');
  found.charts = charts.length;
  found.narrowest = Math.min(...charts.map((e) => e.getBoundingClientRect().width));
  found.overlaps = all('.role-axis').filter(overlapping).length;
  found.cut = charts.filter(cut).length;
  found.font = Math.min(...all('text, td, th, small').map(
    (e) => parseFloat(getComputedStyle(e).fontSize)));
  found.folded = all('.chart.drawn + details').every((e) => !e.open);
  found.loaded = performance.getEntriesByType('resource').length;

  const chart = due.filter(
    (e) => e.querySelector('[aria-roledescription="line mark container"]')).pop();
  const svg = chart.querySelector('svg');
  svg.scrollIntoView();
  const box = svg.getBoundingClientRect();
  const at = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 3};
  const target = document.elementFromPoint(at.clientX, at.clientY);
  const send = (kind, more = {}) => target.dispatchEvent(new (
    kind === 'wheel' ? WheelEvent : PointerEvent)(
    kind, {...at, ...more, bubbles: true, cancelable: true}));
  send('pointerover'); send('pointermove'); await wait();
  found.tip = document.getElementById('vg-tooltip-element')?.innerText;
  const labels = () => all('.role-axis-label text', svg).map((e) => e.textContent).join(' ');
  const before = labels();
  found.scrolls = send('wheel', {deltaY: -300}); await wait();
  found.still = labels() === before;
  for (let i = 0; i < 5; i++) send('wheel', {deltaY: -300, ctrlKey: true});
  await wait();
  found.zoomed = labels() !== before;

  const style = getComputedStyle(document.body);
  found.background = style.backgroundColor; found.colour = style.color;
  found.label = getComputedStyle(document.querySelector('.role-axis-label text')).fill;
  found.hacked = window.hacked ?? null;
  frameElement.dataset.found = JSON.stringify(found);
}
addEventListener('load', probe);
</script>"""


def dumped(page: Path, folder: Path, *flags: str) -> tuple[str, str]:
    """What a page has become when it is drawn, and the console."""
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(BROWSER), *FLAGS, profile, *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def browse(
    pages: list[tuple[Path, int]], folder: Path, *flags: str
) -> tuple[list[dict[str, Any]], str]:
    """Open pages in frames of some widths, a probe in each: what the probes found, the console."""
    frames = []
    for page, width in pages:
        # the page's policy lets no script run but its own
        text = re.sub(r"<meta http-equiv=.*", LISTEN, page.read_text(), count=1)
        before, _, after = text.rpartition("</body>")
        text = html.escape(f"{before}{PROBE}</body>{after}")
        frames.append(FRAME.format(width=width, page=text))
    framed = folder / "framed.html"
    head = '<!doctype html><meta name="color-scheme" content="light dark">'
    framed.write_text(head + "".join(frames))
    content, console = dumped(framed, folder, *flags)
    found = re.findall(r'data-found="([^"]*)"', content)
    assert len(found) == len(pages), f"a probe did not end: {console[-2000:]}"
    return [json.loads(html.unescape(one)) for one in found], console


@pytest.fixture(scope="module")
def pages(made_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run in full, and two side by side."""
    out = tmp_path_factory.mktemp("pages")
    return {
        "one": write_report(made_runs / "Magnitude_80", out / "one").html,
        "two": write_report(made_runs, out / "two").html,
    }


def check(found: dict[str, Any], width: int, dark: bool) -> None:
    assert found["faults"] == [] and found["width"] == width
    assert found["content"] <= width, "the page has to be scrolled sideways"
    assert found["charts"] == 6
    assert found["narrowest"] > 0.7 * min(width, 400)
    assert found["font"] >= 11
    assert found["overlaps"] == 0, "labels of an axis run into each other"
    assert found["cut"] == 0, "labels are cut"
    assert found["folded"] and found["loaded"] == 0
    assert found["background"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert found["colour"] == ("rgb(230, 237, 243)" if dark else "rgb(27, 31, 36)")
    assert found["label"] == ("rgb(157, 167, 179)" if dark else "rgb(87, 96, 106)")
    # the wheel alone scrolls the page
    assert found["scrolls"] and found["still"] and found["zoomed"]


@pytest.mark.parametrize("dark", [False, True])
def test_pages_work(pages: dict[str, Path], dark: bool, tmp_path: Path) -> None:
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
    widths = (1400, 400) if dark else (400, 1400)
    shown = list(zip(pages.values(), widths, strict=True))
    found, console = browse(shown, tmp_path, *flags)
    assert console == ""
    for one, (_, width) in zip(found, shown, strict=True):
        check(one, width, dark)
    assert re.fullmatch(r"step 1[3-6]\nLearningRate[\w/]+: 0\.03\d+", found[0]["tip"])
    assert re.match(r"step (16|24)\nMagnitude 80%: [\d.]+\n", found[1]["tip"])


def test_names_are_shown_and_nothing_else(tmp_path: Path) -> None:
    for number in range(2):
        run = RunDirectory.start(tmp_path / "runs" / str(number), HOSTILE, f"{HOSTILE} {number}")
        for step in range(3):
            run.metrics().log_scalars(HOSTILE, {f"{HOSTILE} loss": 1.0, "loss": 1.0}, step=step)
        storage = {"dense": 100, "zstd": 50 + number}
        run.write_result(
            {"sparse": {"metrics": {HOSTILE: 0.5 + number}, "storage": storage}},
            layers=[{"name": HOSTILE, "parameters": 3, "zeros": 1, "kind": HOSTILE}],
        )
    page = write_report(tmp_path / "runs").html
    # what the probe has to see
    page.write_text(page.read_text().replace("<main", "<script>missing()</script><main"))
    (found,), console = browse([(page, 1000)], tmp_path)
    assert found["hacked"] is None
    assert found["faults"] == ["Uncaught ReferenceError: missing is not defined"]
    assert console.count("missing is not defined") == len(console.splitlines()) == 1
    assert HOSTILE.split("\n")[0] in found["tip"]


def test_the_policy_lets_no_script_run_but_the_pages_own(
    pages: dict[str, Path], tmp_path: Path
) -> None:
    other = "<main><script>document.title = 'hacked'</script><img src=x onerror=alert(1)>"
    changed = tmp_path / "changed.html"
    changed.write_text(re.sub("<main[^>]*>", other, pages["one"].read_text(), count=1))
    content, console = dumped(changed, tmp_path)
    assert content.count('class="marks"') == 6
    assert "<title>hacked" not in content
    lines = console.splitlines()
    assert len(lines) >= 2 and all("Content Security Policy" in line for line in lines)
