// Draws the charts of a page that is complete without them, as their data is in tables below them.
(() => {
  "use strict";

  const config = JSON.parse(document.getElementById("theme").textContent);
  const options = {
    actions: false, ast: true, config, defaultStyle: false, renderer: "svg",
    tooltip: { disableDefaultStyle: true },
  };

  async function draw(chart) {
    const spec = JSON.parse(chart.lastElementChild.textContent);
    for (const parameter of spec.params ?? []) {
      if (parameter.name === "narrow") parameter.value = chart.clientWidth < 500;
    }
    chart.classList.add("drawn");
    const table = chart.parentElement.querySelector("details");
    table.open = false;
    try {
      await vegaEmbed(chart.firstElementChild, spec, options);
    } catch (error) {
      table.open = true;
      console.error(error);
    }
  }

  // those in something folded wait until it is opened
  function drawVisible() {
    for (const chart of document.querySelectorAll(".chart:not(.drawn)")) {
      if (!chart.closest("details:not([open])")) draw(chart);
    }
  }

  // a link to a run must not end at something folded
  function unfold() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }

  document.addEventListener("toggle", drawVisible, true);
  window.addEventListener("hashchange", unfold);
  unfold();
  drawVisible();
})();
