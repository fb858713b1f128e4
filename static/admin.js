/* The admin panel: selecting keys, a scan that goes on by itself, typed confirmation. */
(() => {
  "use strict";
  let stopped = false;

  /* ---- selection ---- */
  const boxes = () => [...document.querySelectorAll('input[name="key"][form="bulk"]:not(:disabled)')];

  function count() {
    const bar = document.getElementById("bulk");
    if (!bar) return;
    const chosen = boxes().filter((box) => box.checked);
    for (const box of boxes()) box.closest("tr").classList.toggle("is-sel", box.checked);
    bar.querySelector('[data-slot="selected"]').textContent = String(chosen.length);
    const none = !chosen.length && !bar.querySelector('[name="all"]').checked;
    for (const button of bar.querySelectorAll("[data-bulk]")) button.disabled = none;
  }

  function selectShown(all) {
    for (const box of boxes()) box.checked = all.checked;
  }

  /* ---- a scan goes on until it has enough, or is stopped ---- */
  function goOn() {
    const next = document.querySelector("#continue[data-goes-on]");
    if (!next || stopped) return;
    next.removeAttribute("data-goes-on");
    next.click();
  }

  function stop(button) {
    stopped = true;
    button.remove();
  }

  /* ---- a dialog opens as soon as it is there, and asks for what must be typed ---- */
  function ask() {
    const dialog = document.querySelector("#action dialog:not([open])");
    if (dialog) dialog.showModal();
    guard();
    document.querySelector("#action [data-focus]")?.focus();
  }

  function guard() {
    const field = document.querySelector("[data-must]");
    const button = document.querySelector("[data-guarded]");
    if (field && button) button.disabled = field.value.trim().replaceAll(",", "") !== field.dataset.must;
  }

  document.addEventListener("change", (event) => {
    if (event.target.dataset.select === "page") selectShown(event.target);
    if (event.target.matches('#bulk input, input[form="bulk"], [data-select]')) count();
  });
  document.addEventListener("input", (event) => event.target.matches("[data-must]") && guard());
  document.addEventListener("submit", (event) => {
    if (event.target.matches(".filters")) stopped = false;
  });
  document.addEventListener("click", (event) => {
    const act = event.target.closest("[data-act]");
    if (act?.dataset.act === "stop-scan") stop(act);
    if (act?.dataset.act === "cancel") act.closest("dialog").close();
    if (event.target.closest("#continue") && event.isTrusted) stopped = false;
  });
  document.addEventListener("htmx:after:swap", (event) => {
    const target = event.detail.ctx.target;
    const id = target?.id ?? String(target ?? "").replace("#", "");
    if (id === "action") ask();
    if (id === "rows" || id === "result") {
      count();
      goOn();
    }
  });
  count();
  goOn();
  guard();
})();
