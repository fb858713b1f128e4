/* The code tab: copying, and badges that match the rows of the tape. */
(() => {
  "use strict";

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "vh";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.classList.add("is-done");
    document.getElementById("say").textContent = "Copied";
    setTimeout(() => button.classList.remove("is-done"), 1500);
  }

  function textOf(block) {
    return [...block.querySelectorAll(".l > code")].map((line) => line.textContent).join("\n");
  }

  const lineOf = (element) => element.dataset.source ?? element.closest(".l")?.dataset.line;

  /* Rows of the newest receipt and badges with the same number and line mark each other. */
  function partners(element) {
    const { ref } = element.dataset;
    const same = document.querySelectorAll(
      `#tape-roll .is-first .cmd[data-ref="${ref}"], .code .ref[data-ref="${ref}"]`,
    );
    return [...same].filter((other) => lineOf(other) === lineOf(element));
  }

  function mark(event) {
    for (const marked of document.querySelectorAll(".is-marked")) marked.classList.remove("is-marked");
    if (event.type === "mouseout" || event.type === "focusout") return;
    const element = event.target.closest?.(".ref, .is-first .cmd[data-ref]");
    if (element) for (const partner of partners(element)) partner.classList.add("is-marked");
  }

  function showRow(badge) {
    const row = partners(badge).find((partner) => partner.matches(".cmd"));
    row?.scrollIntoView({ block: "nearest" });
  }

  function showLine(link) {
    const line = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (!line) return;
    window.shell.openTab(document.getElementById("t-code"));
    line.scrollIntoView({ block: "center" });
    line.classList.add("is-marked");
  }

  for (const type of ["mouseover", "mouseout", "focusin", "focusout"]) document.addEventListener(type, mark);
  document.addEventListener("click", (event) => {
    const copier = event.target.closest('[data-act="copy-code"]');
    if (copier) copy(textOf(copier.closest(".code")), copier);
    const badge = event.target.closest(".ref");
    if (badge) showRow(badge);
    const link = event.target.closest('[data-act="source"]');
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    showLine(link);
  });
  window.code = { copy };
})();
