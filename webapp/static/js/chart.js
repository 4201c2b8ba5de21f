// Today on the site's clock: measured power in full lines, the plan ahead dashed; the price in a strip below.
"use strict";

(() => {
  const place = document.getElementById("chart");
  const board = document.getElementById("board");
  if (!place || !board) return;
  const NAMES = ["grid", "pv", "battery", "charging", "loads", "building"];
  const EVERY_MS = 60000;
  const PRICE_PX = 104;
  const AXIS_PX = 46;
  let charts = [];
  let loaded = null;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const wash = (color) => `color-mix(in srgb, ${color} 14%, transparent)`;
  const font = "12px sans-serif";

  const stepped = () => uPlot.paths.stepped({ align: 1 });
  const axis = () => ({ stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font });
  const scaled = (values, by) => values.map((v) => (v === null || v === undefined ? null : v / by));

  function shared(day, height, withHours) {
    return {
      width: place.clientWidth,
      height,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), day.timezone),
      padding: [10, 10, withHours ? 0 : 6, 0],
      legend: { show: false },
      cursor: { points: { size: 6 }, drag: { x: false, y: false }, sync: { key: "day" } },
      hooks: { draw: [(u) => markNow(u, day.now)], setCursor: [(u) => read(u, day)] },
      hours: {
        ...axis(), grid: { show: false }, show: withHours, space: 56,
        values: (_u, ticks) => ticks.map((t) => hour(t, day.timezone)),
      },
    };
  }

  function power(day, height) {
    const line = (name, planned) => ({
      label: name,
      stroke: css(`--${name}`),
      width: planned ? 1.5 : 2,
      dash: planned ? [5, 4] : undefined,
      fill: !planned && (name === "charging" || name === "pv") ? wash(css(`--${name}`)) : undefined,
      paths: stepped(),
      points: { show: false },
      scale: "kW",
    });
    const { hours, ...frame } = shared(day, height, !day.has.price);
    const options = {
      ...frame,
      scales: { kW: { range: (_u, low, high) => uPlot.rangeNum(Math.min(low ?? 0, 0), Math.max(high ?? 1, 1), 0.08, true) } },
      axes: [hours, { ...axis(), scale: "kW", size: AXIS_PX, values: (_u, ticks) => ticks.map((t) => `${Laadplein.whole.format(t)}${t === ticks.at(-1) ? " kW" : ""}`) }],
      series: [{}, ...NAMES.map((name) => line(name, false)), ...NAMES.map((name) => line(name, true))],
    };
    const columns = [day.t, ...NAMES.map((n) => scaled(day.measured[n], 1000)), ...NAMES.map((n) => scaled(day.plan[n], 1000))];
    return new uPlot(options, columns, place);
  }

  function price(day) {
    const { hours, ...frame } = shared(day, PRICE_PX, true);
    const options = {
      ...frame,
      scales: { ct: { range: (_u, low, high) => uPlot.rangeNum(Math.min(low ?? 0, 0), Math.max(high ?? 1, 1), 0.1, true) } },
      axes: [hours, { ...axis(), scale: "ct", size: AXIS_PX, space: 24, values: (_u, ticks) => ticks.map((t) => `${Laadplein.whole.format(t)}${t === ticks.at(-1) ? " ct" : ""}`) }],
      series: [{}, { label: place.dataset.price, scale: "ct", stroke: css("--price"), fill: wash(css("--price")), width: 1.5, paths: stepped(), points: { show: false } }],
    };
    const made = new uPlot(options, [day.t, scaled(day.price, 10)], place);
    made.root.style.bottom = "0";
    return made;
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
    let at = u.cursor.idx ?? null;
    if (at === null) at = day.measured.grid.findLastIndex((v) => v !== null);
    const source = day.t[at] > day.now ? day.plan : day.measured;
    for (const slot of document.querySelectorAll("#legend [data-series]")) {
      const name = slot.dataset.series;
      const cents = day.price[at];
      if (at < 0) slot.textContent = "";
      else if (name === "price") slot.textContent = typeof cents === "number" ? `${Laadplein.tenth.format(cents / 10)} ct` : "";
      else slot.textContent = Laadplein.power(source[name][at], "–");
    }
  }

  function draw(day) {
    loaded = day;
    for (const chart of charts) chart.destroy();
    charts = [];
    place.replaceChildren();
    document.querySelector("#legend [data-series=loads]").closest("li").hidden = !day.has.loads;
    const note = document.getElementById("chart-note");
    if (!day.has.measured && !day.has.plan) {
      say(place.dataset.empty);
      note.textContent = "";
      return;
    }
    note.textContent = [day.has.price ? "" : note.dataset.noPrice, day.has.plan ? "" : note.dataset.noPlan].filter(Boolean).join(" ");
    const height = place.clientHeight;
    charts = day.has.price ? [power(day, height - PRICE_PX), price(day)] : [power(day, height)];
    read(charts[0], day);
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
