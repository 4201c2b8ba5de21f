// The energy-flow picture: dots run along each spoke in the direction of the power, faster with more of it.
"use strict";

Laadplein.flow = (() => {
  const picture = document.getElementById("flow");
  // Load-positive: what is positive leaves the hub, except for the grid, which feeds it.
  const inwardWhenPositive = { grid: true };
  const STILL_W = 20;

  function word(name, watts, flows) {
    if (typeof watts !== "number" || Math.abs(watts) < STILL_W) {
      return name === "battery" ? soc(flows) : "";
    }
    const text = picture.dataset[name + (watts > 0 ? "In" : "Out")] || "";
    return name === "battery" ? [text, soc(flows)].filter(Boolean).join(" · ") : text;
  }

  function soc(flows) {
    return typeof flows.battery_soc === "number" ? `${Laadplein.whole.format(flows.battery_soc * 100)} %` : "";
  }

  function draw(flows) {
    if (!picture) return;
    const told = [];
    for (const node of picture.querySelectorAll("[data-flow]")) {
      const name = node.dataset.flow;
      const watts = flows[`${name}_w`];
      const known = typeof watts === "number";
      const moving = known && Math.abs(watts) >= STILL_W;
      const inward = moving && (watts > 0) === Boolean(inwardWhenPositive[name]);
      node.classList.toggle("unknown", !known);
      node.classList.toggle("moving", moving);
      node.classList.toggle("outward", moving && !inward);
      const stream = node.querySelector(".stream");
      if (moving) {
        const weight = Math.min(Math.log10(Math.abs(watts) / STILL_W) / 3.7, 1);
        stream.style.setProperty("--pace", `${(2.4 - 1.9 * weight).toFixed(2)}s`);
        stream.style.strokeWidth = (4 + 5 * weight).toFixed(1);
      }
      const value = Laadplein.power(known ? Math.abs(watts) : null, picture.dataset.unknown);
      const said = word(name, watts, flows);
      node.querySelector("[data-value]").textContent = value;
      node.querySelector("[data-word]").textContent = said;
      told.push(`${node.querySelector(".label").textContent} ${value} ${said}`.trim());
    }
    const ring = picture.querySelector("[data-soc]");
    const charge = typeof flows.battery_soc === "number" ? Math.min(Math.max(flows.battery_soc, 0), 1) * 100 : 0;
    if (ring) {
      ring.setAttribute("stroke-dasharray", `${charge.toFixed(1)} 100`);
      ring.toggleAttribute("hidden", charge === 0);
    }
    picture.querySelector("desc").textContent = told.join(", ");
  }

  return { draw };
})();
