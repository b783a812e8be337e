"""Vega, which draws the charts: its JavaScript for a page, and a chart as a picture."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from sparseml.report.panels.charts import THEME, Panel
from sparseml.utils.atomic import atomic_path

#: What to say where it is not installed.
ABSENT = "vl-convert-python is not installed: pip install 'sparseml-next[report]'"
_NEEDED = "window.vegaEmbed = vegaEmbed;"
_END = "\n})();"


@lru_cache(maxsize=1)
def chart_script() -> str | None:
    """Return the script that defines ``vegaEmbed``, some 900 kB; None without vl-convert.

    To put it together takes seconds, so it is kept in ``~/.cache/sparseml``.
    """
    try:
        import vl_convert
    except ImportError:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparseml"
    kept = cache / f"vega-{version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        script = kept.read_text(encoding="utf-8")
        if script.endswith(_END):
            return script
    bundle = vl_convert.javascript_bundle(_NEEDED)
    # nothing in it may end the element that it stands in, or be seen by other scripts
    script = "(() => {\n" + re.sub("</(?=script)", r"<\\/", bundle, flags=re.IGNORECASE) + _END
    with suppress(OSError), atomic_path(kept) as part:
        part.write_text(script, encoding="utf-8")
    return script


def chart_picture(panel: Panel, width: int = 560) -> str:
    """Return a chart as SVG in the light colours of the page.

    :raises ImportError: without vl-convert
    """
    import vl_convert

    style = (Path(__file__).parents[1] / "templates" / "report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#\w{6})", style.partition("@media")[0]))
    keys = [f"{'dashed' if key.dash else key.mark}: {key.label}" for key in panel.legend]
    title = {"text": panel.title, "subtitle": ", ".join(keys), "anchor": "start"}
    config = {"config": THEME | {"background": "white"}, "title": title, "width": width}
    drawn = json.dumps({**(panel.spec or {}), **config})
    picture: str = vl_convert.vegalite_to_svg(
        re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], drawn)
    )
    # ids that count all pictures so far; the same picture is the same file
    ids = {found: str(n) for n, found in enumerate(dict.fromkeys(re.findall(r"clip\d+", picture)))}
    return re.sub(r"clip\d+", lambda found: f"clip{ids[found[0]]}", picture)
