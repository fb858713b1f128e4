/* The frame of every page: preferences, menu, tabs, faders, dialogs, failed requests. */
(() => {
  "use strict";
  const root = document.documentElement;
  const find = (selector) => document.querySelector(selector);

  function remember(name, value) {
    document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`;
  }

  function theme() {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remember("theme", root.dataset.theme);
  }

  function projector() {
    const on = root.toggleAttribute("data-projector");
    find('[data-act="projector"]').setAttribute("aria-pressed", String(on));
    remember("projector", on ? "1" : "");
    document.dispatchEvent(new Event("tape:refresh"));
  }

  function fold() {
    const folded = root.dataset.tape !== "folded";
    if (folded) root.dataset.tape = "folded";
    else delete root.dataset.tape;
    remember("tape", folded ? "folded" : "");
  }

  function menu(open) {
    const button = find('[data-act="menu"]');
    const rail = find("#rail");
    const show = open ?? !rail.classList.contains("is-open");
    if (show === rail.classList.contains("is-open")) return;
    rail.classList.toggle("is-open", show);
    button.setAttribute("aria-expanded", String(show));
    (show ? rail.querySelector("a") : button).focus();
  }

  function drawer(open) {
    const tape = find("#tape");
    const button = find('[data-act="drawer"]');
    const show = open ?? !tape.classList.contains("is-open");
    tape.classList.toggle("is-open", show);
    button.setAttribute("aria-expanded", String(show));
    button.setAttribute("aria-label", show ? "Close tape" : "Open tape");
  }

  function edit() {
    const form = find("#edit");
    form.hidden = !form.hidden;
    const opener = find('[data-act="edit"][aria-controls]');
    opener.setAttribute("aria-expanded", String(!form.hidden));
    if (form.hidden) opener.focus();
    else form.querySelector("input").select();
  }

  /* ---- tabs: links with a URL of their own, switched in place ---- */
  for (const tab of document.querySelectorAll(".tabs > [aria-current], .tabs > [aria-selected='true']"))
    tab.parentNode.scrollLeft = tab.offsetLeft - tab.parentNode.offsetLeft - 16;

  function openTab(tab, focus) {
    for (const other of tab.parentNode.querySelectorAll('[role="tab"]')) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    keepTab();
  }

  function keepTab() {
    const chosen = find('[role="tab"][aria-selected="true"]');
    if (!chosen) return;
    const url = new URL(location.href);
    const name = chosen.id.replace("t-", "");
    if (name === "break") url.searchParams.delete("tab");
    else url.searchParams.set("tab", name);
    if (url.href !== location.href) history.replaceState(history.state, "", url);
  }

  function tabKey(event) {
    const tab = event.target.closest('[role="tab"]');
    if (!tab) return;
    const tabs = [...tab.parentNode.querySelectorAll('[role="tab"]')];
    const at = tabs.indexOf(tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1, " ": at }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    openTab(tabs[(to + tabs.length) % tabs.length], true);
  }

  /* ---- faders: the value beside them, also typable after a double click ---- */
  function valueOf(fader) {
    const steps = fader.dataset.steps?.split(" ");
    return steps ? steps[fader.value] : fader.value;
  }

  /* As the server writes it: 4000 ms is 4 s, and euros stand before their number. */
  function reading(value, unit) {
    if (unit === "ms" && value >= 1000) return reading(value / 1000, "s");
    const parts = [value.toLocaleString("en"), unit];
    return (unit === "€" ? parts.reverse() : parts).filter(Boolean).join("\u00a0");
  }

  function showValue(fader) {
    const output = fader.closest(".field").querySelector("output");
    output.textContent = reading(Number(valueOf(fader)), fader.dataset.unit);
    fader.setAttribute("aria-valuetext", output.textContent);
  }

  function typeValue(output) {
    const fader = output.closest(".field").querySelector("input");
    output.contentEditable = "plaintext-only";
    output.textContent = valueOf(fader);
    output.focus();
    getSelection().selectAllChildren(output);
    output.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") output.blur();
      event.stopPropagation();
    });
    output.addEventListener("blur", () => {
      const typed = output.textContent.trim();
      const at = fader.dataset.steps?.split(" ").indexOf(typed) ?? Number(typed);
      if (typed && at >= 0) fader.value = at;
      output.contentEditable = "false";
      fader.dispatchEvent(new Event("input", { bubbles: true }));
      fader.dispatchEvent(new Event("change", { bubbles: true }));
    }, { once: true });
  }

  /* ---- a request that got no answer ---- */
  let failed = null;
  function requestFailed(event) {
    const note = find("#request-failed");
    failed = event.detail.ctx?.sourceElement ?? null;
    if (!event.detail.ctx) return;
    note.querySelector('[data-slot="error"]').textContent = String(event.detail.error?.message ?? "");
    note.hidden = false;
  }

  function retry(button) {
    const source = failed;
    const note = button.closest(".warn");
    if (note.id) note.hidden = true;
    else note.remove();
    if (!source?.isConnected) location.reload();
    else if (source.tagName === "FORM") source.requestSubmit();
    else source.click();
  }

  const acts = {
    theme, projector, fold, edit, retry,
    menu: () => menu(), drawer: () => drawer(),
    help: () => find("#shortcuts").showModal(),
  };

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) document.getElementById(opener.dataset.open).showModal();
    const tab = event.target.closest('[role="tab"]');
    const actor = event.target.closest("[data-act]");
    const act = acts[actor?.dataset.act];
    if ((tab || act) && (event.ctrlKey || event.metaKey)) return;
    if (tab) openTab(tab);
    if (act) act(actor);
    if (tab || (act && actor.matches("a"))) event.preventDefault();
    if (!event.target.closest('#rail, [data-act="menu"]')) menu(false);
  });
  document.addEventListener("submit", (event) => {
    const pressed = event.submitter ?? event.target.querySelector("[type=submit]");
    for (const button of event.target.elements) button.classList.toggle("is-pressed", button === pressed);
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") menu(false);
    tabKey(event);
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches('input[type="range"]')) showValue(event.target);
  });
  document.addEventListener("dblclick", (event) => {
    if (event.target.matches(".field output")) typeValue(event.target);
  });
  document.addEventListener("change", (event) => {
    const { cookie } = event.target.dataset;
    if (!cookie) return;
    remember(cookie, event.target.type === "checkbox" ? (event.target.checked ? "1" : "") : valueOf(event.target));
  });
  document.addEventListener("htmx:error", requestFailed);
  document.addEventListener("htmx:response:error", (event) => { failed = event.detail.ctx.sourceElement; });
  document.addEventListener("htmx:before:request", () => { find("#request-failed").hidden = true; });
  document.addEventListener("htmx:after:history:update", keepTab);
  document.addEventListener("htmx:after:request", (event) => {
    const { closes } = event.detail.ctx.sourceElement.dataset;
    if (closes) document.getElementById(closes).close();
  });
  for (const fader of document.querySelectorAll('input[type="range"]')) showValue(fader);
  window.shell = { theme, projector, fold, openTab };
})();
