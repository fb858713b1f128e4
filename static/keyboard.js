/* Single-key shortcuts. They never fire while typing and can be switched off in `?`. */
(() => {
  "use strict";
  const find = (selector) => document.querySelector(selector);
  const press = (act) => find(`[data-act="${act}"]`)?.click();
  const isOn = () => localStorage.getItem("shortcuts") !== "off";

  function move(by) {
    const heads = [...document.querySelectorAll("#tape-roll .receipt:not([hidden]) .receipt__head")];
    const at = heads.indexOf(document.activeElement);
    const to = at < 0 ? 0 : Math.min(Math.max(at + by, 0), heads.length - 1);
    heads[to]?.focus();
  }

  function tab(number) {
    const tabs = document.querySelectorAll('[role="tab"]');
    if (tabs[number]) window.shell.openTab(tabs[number], true);
  }

  function run() {
    const form = document.activeElement?.closest(".xp") ?? find(".xp:focus-within, .xp");
    if (form?.closest("[hidden]") === null) form.requestSubmit();
  }

  const shortcuts = {
    l: () => press("live"),
    t: () => window.shell.fold(),
    j: () => move(1),
    k: () => move(-1),
    c: () => press("copy-cli"),
    r: run,
    1: () => tab(0),
    2: () => tab(1),
    3: () => tab(2),
    p: () => press("projector"),
    d: () => press("theme"),
    "/": () => press("find"),
    "?": () => press("help"),
  };

  function isTyping(target) {
    return target.isContentEditable || target.matches('input:not([type="range"], [type="checkbox"]), select, textarea');
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (find("dialog[open]") || isTyping(event.target)) return;
    const shortcut = shortcuts[event.key.toLowerCase()];
    if (!shortcut || !isOn()) return;
    event.preventDefault();
    shortcut();
  });
  const toggle = find("#shortcuts-on");
  toggle.checked = isOn();
  toggle.addEventListener("change", () => localStorage.setItem("shortcuts", toggle.checked ? "on" : "off"));
})();
