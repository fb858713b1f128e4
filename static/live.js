/* The one websocket of a page: vitals, live or paused, and what happens when it is lost. */
(() => {
  "use strict";
  const EVERY_MS = 250; // at most four patches a second
  const MOST_PENDING = 200;
  const STATES = new Set(["vitals", "streams", "locks"]);
  const STALE_MS = 5000;
  const FIRST_WAIT_MS = 500;
  const LONGEST_WAIT_MS = 10000;
  const root = document.documentElement;
  const button = document.getElementById("live");
  const note = document.getElementById("stream-lost");
  const pending = [];
  let socket = null;
  let open = false;
  let leaving = false;
  let wait = FIRST_WAIT_MS;
  let waiting = 0;
  let patchedAt = 0;
  let paused = sessionStorage.getItem("live") === "paused";
  let shownAt = Date.now() - Number(document.getElementById("vitals").dataset.ageMs || 0);

  function connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const { topics, after } = document.body.dataset;
    const asked = new URLSearchParams(after ? { topics, after } : { topics });
    socket = new WebSocket(`${scheme}//${location.host}/ws/live?${asked}`);
    socket.addEventListener("open", () => {
      open = true;
    });
    socket.addEventListener("message", (event) => receive(JSON.parse(event.data)));
    socket.addEventListener("close", () => {
      open = false;
      document.dispatchEvent(new Event("live:closed"));
      if (leaving) return;
      setTimeout(connect, wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      show();
    });
  }

  /* A newer state replaces an older one; anything else waits for its turn. */
  function receive(message) {
    wait = FIRST_WAIT_MS;
    const isState = STATES.has(message.topic);
    const before = isState ? pending.findIndex((m) => m.topic === message.topic) : -1;
    if (before >= 0) pending.splice(before, 1);
    if (message.topic === "feed" && message.id) document.body.dataset.after = message.id;
    pending.push(message);
    if (pending.length > MOST_PENDING) pending.shift();
    if (paused) {
      waiting += 1;
      show();
    } else if (Date.now() - patchedAt >= EVERY_MS) patch();
  }

  function patch() {
    if (paused || document.querySelector(".strip:hover, .spark:hover")) return;
    const messages = pending.splice(0);
    if (!messages.length) return;
    patchedAt = Date.now();
    const text = messages.map((message) => message.html ?? "").join("");
    if (text) htmx.swap({ text, swap: "none", sourceElement: document.body });
    if (messages.some((message) => message.topic === "vitals")) shownAt = Date.now();
    document.dispatchEvent(new CustomEvent("live", { detail: messages }));
  }

  function ageText(ms) {
    const seconds = Math.round(ms / 1000);
    return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
  }

  function pausedText() {
    return waiting ? `Paused, ${waiting} waiting` : "Paused";
  }

  function show() {
    const age = Date.now() - shownAt;
    const lost = !paused && age > STALE_MS;
    root.dataset.live = paused ? "paused" : lost ? "lost" : "on";
    button.setAttribute("aria-pressed", String(paused));
    const retrying = lost || (!open && wait > FIRST_WAIT_MS);
    button.textContent = paused ? pausedText() : retrying ? "Reconnecting" : "Live";
    button.classList.toggle("is-lost", retrying && !paused);
    note.hidden = !lost;
    if (!lost) return;
    note.querySelector('[data-slot="age"]').textContent = ageText(age);
    note.querySelector('[data-slot="clock"]').textContent = new Date(shownAt).toTimeString().slice(0, 8);
  }

  button.addEventListener("click", () => {
    paused = !paused;
    waiting = 0;
    sessionStorage.setItem("live", paused ? "paused" : "on");
    patch();
    show();
  });
  addEventListener("pagehide", () => {
    leaving = true;
    socket?.close();
  });
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    leaving = false;
    connect();
  });
  setInterval(patch, EVERY_MS);
  setInterval(show, 1000);
  connect();
  show();
})();
