/* The live feed: connected, lost and back, and what was missed in between. */
(() => {
  "use strict";
  const SHOWN = 50;
  const REFRESH_MS = 10000;
  const state = document.getElementById("feed-state");
  const list = document.getElementById("feed-list");
  const slot = (name) => state.querySelector(`[data-slot="${name}"]`);
  const note = (name) => state.querySelector(`[data-note="${name}"]`);
  let away = false;
  let sent = "";

  function show(name) {
    for (const pill of state.querySelectorAll("[data-state]")) pill.hidden = pill.dataset.state !== name;
  }

  function refresh() {
    if (document.documentElement.dataset.live !== "paused") htmx.trigger("#feed-refresh", "refresh");
  }

  function lose() {
    away = true;
    note("missed").hidden = true;
    show("lost");
  }

  function join(data) {
    const missed = data.missed ?? 0;
    const whole = data.whole ?? true;
    note("missed").hidden = !away;
    note("more").hidden = whole;
    slot("missed").textContent = missed.toLocaleString("en");
    show(away ? "back" : "connected");
    away = false;
    refresh();
  }

  function drop(data) {
    note("dropped").hidden = false;
    slot("dropped").textContent = data.missed.toLocaleString("en");
  }

  const takes = { joined: join, lost: lose, dropped: drop, told: () => {} };

  document.addEventListener("live", (event) => {
    for (const message of event.detail) if (message.topic === "feed") takes[message.data.state](message.data);
  });
  document.addEventListener("live:closed", lose);

  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const row of change.addedNodes) row.classList?.add("is-new");
    }
    while (list.children.length > SHOWN) list.lastElementChild.remove();
    document.getElementById("feed-empty").hidden = list.children.length > 0;
  }).observe(list, { childList: true });
  /* The line is emptied when it was taken, unless something else stands there by now. */
  document.addEventListener("submit", (event) => {
    if (event.target.id === "feed-send") sent = event.target.elements.text.value;
  }, true);
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail.ctx.target?.id !== "feed-send") return;
    const field = document.getElementById("feed-text");
    if (!field.hasAttribute("aria-invalid") && field.value === sent) field.value = "";
    refresh();
  });
  setInterval(refresh, REFRESH_MS);
})();
