/* Keys on this page: TTLs run down by the second, expired keys leave after a while. */
(() => {
  "use strict";
  const GONE_MS = 5000;
  const SLACK_MS = 1500; // between two looks at the same TTL
  const seen = new WeakMap(); // element -> when its TTL was true
  let known = null; // key -> when it expires, at the last look

  function clock(ms) {
    const seconds = Math.ceil(ms / 1000);
    const two = (number) => String(number).padStart(2, "0");
    const [h, min] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
    const hours = h < 48 ? h : `${Math.floor(h / 24)}\u00a0d ${h % 24}`;
    return `${hours ? `${hours}:${two(min)}` : min}:${two(seconds % 60)}`;
  }

  function left(element) {
    if (!seen.has(element)) seen.set(element, Date.now());
    return Number(element.dataset.ttlMs) - (Date.now() - seen.get(element));
  }

  function drain(row) {
    const ms = left(row);
    const longest = Number(row.dataset.ttlMaxMs);
    const bar = row.querySelector("progress");
    if (ms <= 0) {
      expire(row, bar, -ms);
      return;
    }
    bar.value = ms;
    bar.classList.toggle("ttl--low", ms < longest * 0.15);
    bar.setAttribute("aria-label", `${clock(ms)} left of at most ${clock(longest)}`);
    row.querySelector('[data-slot="left"] b').textContent = clock(ms);
  }

  function expire(row, bar, ago) {
    if (ago > GONE_MS) {
      row.remove();
      return;
    }
    if (!row.classList.contains("is-gone")) row.dispatchEvent(new Event("expired"));
    row.classList.add("is-gone");
    bar.value = 0;
    bar.setAttribute("aria-label", "expired");
    row.querySelector('[data-slot="left"]').textContent = `expired ${Math.floor(ago / 1000)} s ago`;
  }

  function dim(pill) {
    const ms = left(pill);
    if (ms <= 0) {
      pill.className = "pill";
      pill.textContent = "not cached";
      delete pill.dataset.ttlMs;
    } else if (ms < Number(pill.dataset.ttlMaxMs) * 0.15) {
      pill.className = "pill pill--wait";
      pill.textContent = `expires in ${clock(ms)}`;
    }
  }

  function tick() {
    if (document.documentElement.dataset.live === "paused") return;
    for (const row of document.querySelectorAll("[data-ttl-max-ms]:not(.pill)")) drain(row);
    for (const pill of document.querySelectorAll(".pill[data-ttl-ms]")) dim(pill);
  }

  function endOf(row) {
    return row.dataset.ttlMs ? Date.now() + left(row) : Infinity;
  }

  /* A key that was not there before, or lives longer than it did, is new. */
  function markNew() {
    const rows = document.querySelectorAll("#keys li[data-key]");
    if (!rows.length && !document.querySelector("#keys .empty:not([aria-busy])")) return;
    const ends = new Map([...rows].map((row) => [row.dataset.key, endOf(row)]));
    for (const [i, [key, end]] of [...ends].entries()) {
      const fresh = known !== null && !(end <= known.get(key) + SLACK_MS);
      rows[i].classList.toggle("is-new", fresh);
    }
    known = ends;
  }

  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail.ctx.target?.id === "keys" || event.detail.ctx.target === "#keys") markNew();
  });
  setInterval(tick, 1000);
})();
