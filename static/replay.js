/* A replay ran as a whole; its steps, and their receipts, are shown one by one. */
(() => {
  "use strict";

  function reveal(replay, upTo) {
    for (const step of replay.querySelectorAll("[data-step]")) {
      const n = Number(step.dataset.step);
      step.hidden = n > upTo;
      step.classList.toggle("is-new", n === upTo);
    }
    const last = Math.max(...[...replay.querySelectorAll("[data-step]")].map((step) => Number(step.dataset.step)));
    replay.querySelector('[data-act="step"]').disabled = upTo >= last;
    document.dispatchEvent(new Event("tape:refresh"));
    return last;
  }

  function shown(replay) {
    return Math.max(0, ...[...replay.querySelectorAll("[data-step]:not([hidden])")].map((step) => Number(step.dataset.step)));
  }

  const acts = {
    step: (replay) => reveal(replay, shown(replay) + 1),
    "all-steps": (replay) => reveal(replay, Infinity),
    "first-step": (replay) => reveal(replay, 1),
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".replay [data-act]");
    if (button) acts[button.dataset.act]?.(button.closest(".replay"));
  });
})();
