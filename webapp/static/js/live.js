// Keeps the page of a site alive: one stream of pictures, closed while the page is hidden.
// A lost stream is told in a banner with the age of what is shown, and opened again.
"use strict";

(() => {
  const board = document.getElementById("board");
  if (!board) return;
  const banner = document.getElementById("live-banner");
  const state = document.getElementById("live-state");
  const parts = document.getElementById("parts");
  const OLD_S = 30;
  const RETRY_MS = 3000;
  const REFRESH_MS = 2000;
  let at = board.dataset.at ? new Date(board.dataset.at) : null;
  let source = null;
  let connected = false;
  let refused = 0;
  let refreshed = 0;
  let pending = null;

  function connect() {
    if (document.hidden || source) return;
    source = new EventSource(board.dataset.stream);
    source.onopen = () => { connected = true; refused = 0; tell(); };
    source.addEventListener("picture", (event) => show(JSON.parse(event.data)));
    source.onerror = () => {
      connected = false;
      if (source && source.readyState === EventSource.CLOSED) {
        // The browser gives up when the server refuses; we ask again, more slowly each time.
        refused += 1;
        disconnect();
        setTimeout(connect, Math.min(RETRY_MS * refused, 30000));
      }
      tell();
    };
  }

  function disconnect() {
    if (source) source.close();
    source = null;
    connected = false;
  }

  function show(picture) {
    at = new Date(picture.at);
    Laadplein.flow.draw(picture.flows || {});
    document.getElementById("flow-at").textContent = Laadplein.clock(at, board.dataset.timezone);
    tell();
    refresh();
  }

  // The words of circuits, cars and plan are the server's; it writes them anew, at most every two seconds.
  function refresh() {
    if (pending) return;
    pending = setTimeout(() => {
      pending = null;
      refreshed = Date.now();
      htmx.trigger(parts, "refresh");
    }, Math.max(0, refreshed + REFRESH_MS - Date.now()));
  }

  // What a reader has opened stays open when the parts are written anew.
  let opened = [];
  parts.addEventListener("htmx:beforeSwap", () => {
    opened = Array.from(parts.querySelectorAll("details[open][id]"), (one) => one.id);
  });
  parts.addEventListener("htmx:afterSwap", () => {
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  });

  function tell() {
    const age = at ? (Date.now() - at.getTime()) / 1000 : null;
    const old = age !== null && age > OLD_S;
    let text = "";
    if (refused > 2) text = banner.dataset.login;
    else if (!connected && old) text = banner.dataset.lost;
    else if (old) text = banner.dataset.old;
    banner.querySelector("[data-text]").textContent = text.replace("{age}", Laadplein.age(age || 0));
    banner.hidden = !text;
    const alive = connected && age !== null && !old;
    state.classList.toggle("live", alive);
    state.classList.toggle("lost", !alive);
    state.lastElementChild.textContent = alive ? state.dataset.live : state.dataset.lost;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else connect();
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  const first = document.getElementById("first-picture");
  if (first) Laadplein.flow.draw(JSON.parse(first.textContent));
  setInterval(tell, 5000);
  connect();
})();
