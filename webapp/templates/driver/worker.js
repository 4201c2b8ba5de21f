// Keeps the offline page and its looks, nothing else: private pages are never stored.
"use strict";

const KEEP = {{ keep|safe }};
const STORE = `laadplein-${KEEP.join()}`;

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(STORE).then((store) => store.addAll(KEEP)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches.keys()
      .then((names) => Promise.all(names.filter((name) => name !== STORE).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  const path = new URL(request.url).pathname;
  if (request.mode === "navigate") {
    event.respondWith(fetch(request).catch(() => caches.match(KEEP[0])));
  } else if (KEEP.slice(1).includes(path)) {
    event.respondWith(fetch(request).catch(() => caches.match(path)));
  }
});
