// Today on the site's clock: measured power in full lines, the plan ahead dashed, the price in steps below.
"use strict";

(() => {
  const place = document.getElementById("chart");
  const board = document.getElementById("board");
  if (!place || !board) return;
  const NAMES = ["grid", "pv", "battery", "charging", "building"];
  const EVERY_MS = 60000;
  let chart = null;
  let loaded = null;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const wash = (color) => `color-mix(in srgb, ${color} 14%, transparent)`;

  function columns(day) {
    const kilo = (values) => values.map((v) => (v === null ? null : v / 1000));
    const cents = day.price.map((v) => (v === null || v === undefined ? null : v / 10));
    const measured = NAMES.map((name) => kilo(day.measured[name]));
    const planned = NAMES.map((name) => kilo(day.plan[name]));
    return [day.t, ...measured, ...planned, cents];
  }

  function options(day) {
    const stepped = uPlot.paths.stepped({ align: 1 });
    const line = (name, planned) => ({
      label: name,
      stroke: css(`--${name}`),
      width: planned ? 1.5 : 2,
      dash: planned ? [5, 4] : undefined,
      fill: !planned && (name === "charging" || name === "pv") ? wash(css(`--${name}`)) : undefined,
      paths: stepped,
      points: { show: false },
      spanGaps: false,
      scale: "kW",
    });
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "12px sans-serif" };
    const narrow = place.clientWidth < 520;
    return {
      width: place.clientWidth,
      height: Math.max(place.clientHeight, narrow ? 270 : 330),
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), day.timezone),
      padding: [12, 4, 0, 0],
      cursor: { points: { size: 6 }, drag: { x: false, y: false } },
      legend: { show: false },
      scales: {
        x: { time: true },
        kW: { range: (_u, low, high) => uPlot.rangeNum(Math.min(low ?? 0, 0), Math.max(high ?? 1, 1), 0.1, true) },
        ct: { range: (_u, low, high) => [Math.min(low ?? 0, 0), Math.max((high ?? 1) * 2.2, 1)] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: narrow ? 60 : 50, values: (_u, ticks) => ticks.map((t) => hour(t, day.timezone)) },
        { ...axis, scale: "kW", size: 46, values: (_u, ticks) => ticks.map((t) => Laadplein.whole.format(t)), label: narrow ? undefined : "kW", labelSize: 16, labelFont: "12px sans-serif" },
        { ...axis, scale: "ct", side: 1, size: 40, grid: { show: false }, show: day.has.price && !narrow, values: (_u, ticks) => ticks.map((t) => Laadplein.whole.format(t)), label: "ct/kWh", labelSize: 16, labelFont: "12px sans-serif" },
      ],
      series: [
        {},
        ...NAMES.map((name) => line(name, false)),
        ...NAMES.map((name) => line(name, true)),
        { label: "price", scale: "ct", stroke: css("--price"), width: 1.25, paths: stepped, points: { show: false } },
      ],
      hooks: { draw: [(u) => markNow(u, day.now)], setCursor: [(u) => read(u, day)] },
    };
  }

  function hour(seconds, timeZone) {
    return new Intl.DateTimeFormat(document.documentElement.lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone }).format(new Date(seconds * 1000));
  }

  function markNow(u, now) {
    const x = Math.round(u.valToPos(now, "x", true));
    const { ctx, bbox } = u;
    if (x < bbox.left || x > bbox.left + bbox.width) return;
    ctx.save();
    ctx.strokeStyle = css("--soft");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  // The value under the pointer, else the newest one measured.
  function read(u, day) {
    let at = u.cursor.idx;
    if (at === null || at === undefined) {
      at = day.measured.grid.findLastIndex((v) => v !== null);
      if (at < 0) at = null;
    }
    for (const slot of document.querySelectorAll("#legend [data-series]")) {
      const name = slot.dataset.series;
      if (at === null) slot.textContent = "";
      else if (name === "price") slot.textContent = day.price[at] === null ? "" : `${Laadplein.tenth.format(day.price[at] / 10)} ct`;
      else slot.textContent = Laadplein.power(day.measured[name][at] ?? day.plan[name][at], "");
    }
  }

  function draw(day) {
    loaded = day;
    if (chart) chart.destroy();
    chart = null;
    place.replaceChildren();
    const note = document.getElementById("chart-note");
    if (!day.has.measured && !day.has.plan) {
      say(place.dataset.empty);
      note.textContent = "";
      return;
    }
    note.textContent = [day.has.price ? "" : note.dataset.noPrice, day.has.plan ? "" : note.dataset.noPlan].filter(Boolean).join(" ");
    chart = new uPlot(options(day), columns(day), place);
    read(chart, day);
  }

  function say(text) {
    const empty = document.createElement("p");
    empty.className = "empty";
    empty.textContent = text;
    place.replaceChildren(empty);
  }

  async function load() {
    if (document.hidden) return;
    try {
      const answer = await fetch(board.dataset.chart, { headers: { Accept: "application/json" }, redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      draw(await answer.json());
    } catch {
      if (!loaded) say(place.dataset.failed);
    }
  }

  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(place.clientWidth - width) < 2 || !loaded) return;
    width = place.clientWidth;
    draw(loaded);
  }).observe(place.parentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => loaded && draw(loaded));
  setInterval(load, EVERY_MS);
  load();
})();
