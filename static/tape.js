/* The command tape: receipts arrive in the hidden #receipts, oldest first, and are
   moved to the roll, newest on top. Five minutes of them stay in sessionStorage. */
(() => {
  "use strict";
  const KEPT_MS = 5 * 60 * 1000;
  const OPEN = 3;
  const tape = document.getElementById("tape");
  const roll = document.getElementById("tape-roll");
  const list = roll.querySelector(".receipts");
  const incoming = document.getElementById("receipts");
  const slot = (name) => tape.querySelector(`[data-slot="${name}"]`);
  const housekeeping = document.getElementById("housekeeping");
  const chip = document.getElementById("tape-new");
  const finder = document.querySelector("#tape-find input");
  let scope = tape.querySelector('[data-scope][aria-pressed="true"]').dataset.scope;
  let stored = [];

  /* ---- five minutes, on every page of this tab ---- */
  function load() {
    try {
      stored = JSON.parse(sessionStorage.getItem("tape") ?? "[]");
    } catch {
      stored = [];
    }
    forget();
  }

  function save() {
    try {
      sessionStorage.setItem("tape", JSON.stringify(stored));
    } catch {
      stored = stored.slice(0, Math.floor(stored.length / 2));
      if (stored.length) save();
    }
  }

  function forget() {
    const oldest = Date.now() - KEPT_MS;
    stored = stored.filter((kept) => kept.at > oldest);
  }

  function keep(receipt) {
    const { id } = receipt.dataset;
    stored = stored.filter((kept) => kept.id !== id);
    stored.unshift({ id, at: Date.now(), html: receipt.outerHTML });
  }

  async function restore() {
    const known = new Set([...list.children].map((receipt) => receipt.dataset.id));
    const text = stored.filter((kept) => !known.has(kept.id)).map((kept) => kept.html).join("");
    if (text) await htmx.swap({ text, target: list, swap: "beforeend", sourceElement: document.body });
    const fresh = [...list.children].filter((receipt) => known.has(receipt.dataset.id));
    fresh.forEach(keep);
    newest(fresh);
    save();
    refresh();
  }

  /* ---- arrival ---- */
  function isReading() {
    return roll.scrollTop > 8 || roll.contains(document.activeElement);
  }

  function receive() {
    const receipts = [...incoming.querySelectorAll(".receipt")];
    const shown = receipts.filter((receipt) => !receipt.dataset.said && !("housekeeping" in receipt.dataset));
    const own = shown.filter((receipt) => !("shared" in receipt.dataset)).at(-1);
    if (own) document.getElementById("say").textContent = own.dataset.say;
    for (const receipt of receipts) receipt.dataset.said = "";
    if (isReading()) wait();
    else admit();
  }

  function wait() {
    const waiting = incoming.querySelectorAll(".receipt:not([data-housekeeping])").length;
    chip.querySelector('[data-slot="count"]').textContent = String(waiting);
    chip.hidden = waiting === 0;
  }

  function admit() {
    chip.hidden = true;
    const receipts = [...incoming.querySelectorAll(".receipt")];
    if (!receipts.length) return;
    for (const receipt of receipts) {
      delete receipt.dataset.said;
      keep(receipt);
      list.prepend(receipt);
    }
    newest(receipts.filter((receipt) => !("housekeeping" in receipt.dataset)));
    forget();
    save();
    refresh();
  }

  function newest(receipts) {
    if (!receipts.length && list.querySelector(".is-new:not([data-housekeeping])")) return;
    for (const receipt of list.children) receipt.classList.toggle("is-new", receipts.includes(receipt));
  }

  /* ---- what is shown ---- */
  function isShown(receipt) {
    if (scope === "page" && receipt.dataset.page !== document.body.dataset.page) return false;
    if ("housekeeping" in receipt.dataset && !housekeeping.checked) return false;
    if (document.querySelector(`.replay [hidden][data-receipt="${receipt.dataset.id}"]`)) return false;
    const wanted = finder.value.trim().toLowerCase();
    return !wanted || receipt.textContent.toLowerCase().includes(wanted);
  }

  function fold(receipt, folded) {
    const head = receipt.querySelector(".receipt__head");
    head.setAttribute("aria-expanded", String(!folded));
    document.getElementById(head.getAttribute("aria-controls")).hidden = folded;
  }

  function refresh() {
    const kept = new Set(stored.map((entry) => entry.id));
    for (const receipt of [...list.children]) if (!kept.has(receipt.dataset.id)) receipt.remove();
    const open = document.documentElement.hasAttribute("data-projector") ? 1 : OPEN;
    let shown = 0;
    for (const receipt of list.children) {
      receipt.hidden = !isShown(receipt);
      receipt.classList.toggle("is-first", !receipt.hidden && shown === 0);
      if (receipt.hidden) continue;
      if (!receipt.dataset.chosen) fold(receipt, shown >= open);
      shown += 1;
    }
    count(shown);
    peek();
  }

  function count(shown) {
    const receipts = [...list.children];
    const commands = receipts.reduce((sum, receipt) => sum + Number(receipt.dataset.commands), 0);
    const hidden = receipts.filter((receipt) => "housekeeping" in receipt.dataset).length;
    const text = `${commands.toLocaleString("en")} command${commands === 1 ? "" : "s"}`;
    slot("kept").textContent = text;
    slot("strip").textContent = text;
    const vitals = document.getElementById("vitals-receipt").childElementCount;
    slot("housekeeping").textContent = String(hidden + vitals);
    document.getElementById("tape-empty").hidden = shown > 0;
  }

  function peek() {
    const receipt = list.querySelector(".receipt:not([hidden])");
    const lines = receipt?.querySelectorAll(".cmd:not(.cmd--in, .cmd--out) .cmd__line");
    slot("command").textContent = lines?.length ? lines[lines.length - 1].textContent : "Nothing on the tape yet";
    const cause = receipt?.querySelector(".receipt__what").textContent;
    slot("verdict").textContent = receipt ? `${cause}, ${receipt.dataset.say}` : "";
  }

  /* ---- what the reader does ---- */
  function toggle(head) {
    const receipt = head.closest(".receipt");
    receipt.dataset.chosen = "yes";
    fold(receipt, head.getAttribute("aria-expanded") === "true");
  }

  function unfold(button) {
    for (const row of button.closest(".cmds").children) row.hidden = false;
    button.closest("li").remove();
  }

  function setScope(button) {
    scope = button.dataset.scope;
    for (const other of tape.querySelectorAll("[data-scope]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    refresh();
  }

  function toggleFind() {
    const box = document.getElementById("tape-find");
    delete document.documentElement.dataset.tape;
    box.hidden = !box.hidden;
    if (box.hidden) finder.value = "";
    else finder.focus();
    refresh();
  }

  function openPage() {
    const wanted = finder.value.trim().toLowerCase();
    const links = [...document.querySelectorAll("#rail .nav a")];
    if (wanted) links.find((link) => link.textContent.toLowerCase().startsWith(wanted))?.click();
  }

  function clear() {
    stored = [];
    incoming.replaceChildren();
    chip.hidden = true;
    save();
    refresh();
  }

  function copyCli(button) {
    const chosen = document.activeElement?.closest(".receipt") ?? list.querySelector(".receipt:not([hidden])");
    if (chosen) window.code.copy(chosen.dataset.cli, button);
  }

  tape.addEventListener("click", (event) => {
    const target = (selector) => event.target.closest(selector);
    if (target(".receipt__head")) toggle(target(".receipt__head"));
    else if (target("[data-scope]")) setScope(target("[data-scope]"));
    else if (target('[data-act="unfold"]')) unfold(target('[data-act="unfold"]'));
    else if (target('[data-act="find"]')) toggleFind();
    else if (target('[data-act="clear"]')) clear();
    else if (target('[data-act="copy-cli"]')) copyCli(target('[data-act="copy-cli"]'));
    else if (target("#tape-new")) {
      admit();
      roll.scrollTop = 0;
    }
  });
  housekeeping.addEventListener("change", refresh);
  finder.addEventListener("input", refresh);
  finder.addEventListener("keydown", (event) => {
    if (event.key === "Escape") toggleFind();
    if (event.key === "Enter") openPage();
  });
  roll.addEventListener("scroll", () => isReading() || admit(), { passive: true });
  roll.addEventListener("focusout", () => setTimeout(() => isReading() || admit()));
  document.addEventListener("tape:refresh", refresh);
  new MutationObserver(receive).observe(incoming, { childList: true });
  setInterval(() => {
    const before = stored.length;
    forget();
    if (stored.length < before) {
      save();
      refresh();
    }
  }, 5000);
  load();
  restore();
})();
