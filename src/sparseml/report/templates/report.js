// Adds a readout to charts that are complete without it: under the pointer, and for the arrow keys.
(() => {
  "use strict";

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function followed(plot) {
    const data = JSON.parse(plot.querySelector("script").textContent);
    const count = data.x.length;
    let cursor = null, readout = null, at = count - 1;

    function lines(index) {
      return data.lines
        .filter((line) => line.text[index] !== null)
        .map((line) => `${line.label}: ${line.text[index]}`);
    }

    function show(index) {
      at = clamp(index, 0, count - 1);
      if (!cursor) {
        cursor = plot.appendChild(document.createElement("div"));
        cursor.className = "cursor";
        readout = plot.appendChild(document.createElement("div"));
        readout.className = "readout";
        readout.setAttribute("aria-hidden", "true");
      }
      const x = data.x[at];
      cursor.style.left = `${x}%`;
      readout.textContent = [data.head[at], ...lines(at)].join("\n");
      readout.style.left = x < 50 ? `calc(${x}% + .5rem)` : "auto";
      readout.style.right = x < 50 ? "auto" : `calc(${100 - x}% + .5rem)`;
      readout.style.maxWidth = `calc(${Math.max(x, 100 - x)}% - .5rem)`;
      plot.setAttribute("aria-valuenow", String(at));
      plot.setAttribute("aria-valuetext", `${data.head[at]}: ${lines(at).join(", ")}`);
    }

    function hide() {
      cursor?.remove();
      readout?.remove();
      cursor = readout = null;
    }

    function nearest(event) {
      const box = plot.getBoundingClientRect();
      const x = (100 * (event.clientX - box.left)) / box.width;
      let low = 0, high = count - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (data.x[middle] < x) low = middle; else high = middle;
      }
      return x - data.x[low] < data.x[high] - x ? low : high;
    }

    const moves = {
      ArrowLeft: () => at - 1, ArrowDown: () => at - 1, ArrowRight: () => at + 1, ArrowUp: () => at + 1,
      PageDown: () => at - 10, PageUp: () => at + 10, Home: () => 0, End: () => count - 1,
    };
    return {
      hide,
      point: (event) => show(nearest(event)),
      focus: () => show(at),
      key(event) {
        if (event.key === "Escape") hide();
        if (!moves[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        show(moves[event.key]());
      },
      count,
    };
  }

  for (const plot of document.querySelectorAll(".plot")) {
    let follower = null;
    const follow = () => (follower ??= followed(plot));
    plot.tabIndex = 0;
    plot.setAttribute("role", "slider");
    plot.setAttribute("aria-valuemin", "0");
    plot.setAttribute("aria-valuemax", String(plot.dataset.count - 1));
    plot.setAttribute("aria-valuenow", String(plot.dataset.count - 1));
    plot.addEventListener("pointermove", (event) => follow().point(event));
    plot.addEventListener("pointerdown", (event) => follow().point(event));
    plot.addEventListener("pointerleave", () => follow().hide());
    plot.addEventListener("focus", () => follow().focus());
    plot.addEventListener("blur", () => follow().hide());
    plot.addEventListener("keydown", (event) => follow().key(event));
  }

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "tooltip");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);

  function showTip(row) {
    const box = (row.querySelector(".track") ?? row).getBoundingClientRect();
    tip.textContent = row.dataset.tip;
    tip.hidden = false;
    row.setAttribute("aria-describedby", "tip");
    const left = clamp(box.left + 8, 4, document.documentElement.clientWidth - tip.offsetWidth - 4);
    const below = box.bottom + 6 + tip.offsetHeight < document.documentElement.clientHeight;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(below ? box.bottom + 6 : box.top - tip.offsetHeight - 6) + window.scrollY}px`;
  }

  function hideTip(row) {
    row.removeAttribute("aria-describedby");
    tip.hidden = true;
  }

  for (const table of document.querySelectorAll(".bars")) {
    const rows = [...table.querySelectorAll("tr[data-tip]")];
    rows.forEach((row, index) => {
      row.tabIndex = index ? -1 : 0;
      row.addEventListener("pointerenter", () => showTip(row));
      row.addEventListener("pointerleave", () => hideTip(row));
      row.addEventListener("focus", () => showTip(row));
      row.addEventListener("blur", () => hideTip(row));
      row.addEventListener("keydown", (event) => {
        const to = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: rows.length - 1 }[event.key];
        if (event.key === "Escape") hideTip(row);
        if (to === undefined || !rows[to]) return;
        event.preventDefault();
        row.tabIndex = -1;
        rows[to].tabIndex = 0;
        rows[to].focus();
      });
    });
  }

  // a link to a run must not end at something folded
  function unfold() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }
  window.addEventListener("hashchange", unfold);
  unfold();
})();
