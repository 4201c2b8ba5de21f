// Small comforts of the driver's page; every form works without them.
"use strict";

(() => {
  const own = document.currentScript;
  if ("serviceWorker" in navigator && own) {
    navigator.serviceWorker.register(own.dataset.worker, { scope: own.dataset.scope }).catch(() => {});
  }

  for (const box of document.querySelectorAll("[data-amount]")) {
    const form = box.closest("form");
    const input = box.querySelector("input");
    const size = () => (form.querySelector('[name="unit"]:checked')?.value === "kwh" ? 5 : 25);
    box.classList.add("ready");
    for (const button of box.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => {
        const step = size() * Number(button.dataset.step);
        const next = Math.round(((Number(input.value) || 0) + step) / size()) * size();
        input.value = String(Math.min(Math.max(next, 0), 3000));
      });
    }
  }

  // Without a fixed day there is no time to give.
  for (const form of document.querySelectorAll("form")) {
    const time = form.querySelector('input[type="time"]');
    if (!time) continue;
    const follow = () => { time.hidden = form.querySelector('[name="day"]:checked')?.value === "none"; };
    form.addEventListener("change", follow);
    follow();
  }
})();
