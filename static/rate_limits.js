/* A shape of the rate limit lab: real requests at their planned times, drawn as they are answered. */
(() => {
  "use strict";
  const DRAW_EVERY_MS = 500;
  const form = document.getElementById("limits");
  const button = form.querySelector('[data-act="run-shape"]');
  const run = () => form.querySelector('[name="run"]');
  let running = false;

  async function fetched(url, options) {
    const answer = await fetch(url, { ...options, headers: { "HX-Request": "true" } });
    const text = await answer.text();
    if (answer.ok) return text;
    throw new Refused(text);
  }

  class Refused extends Error {
    constructor(html) {
      super("the app refused a request");
      this.html = html;
    }
  }

  /* One request; what comes back is its receipt. */
  async function send(name) {
    const body = new URLSearchParams({ run: name });
    const text = await fetched(form.action, { method: "POST", body });
    const list = new DOMParser().parseFromString(text, "text/html").querySelector("ol");
    htmx.swap({ text: list.outerHTML, swap: "none", sourceElement: document.body });
  }

  async function draw(name) {
    const text = await fetched(`${form.dataset.lanes}?run=${name}`);
    await htmx.swap({ text, target: "#lanes", swap: "outerHTML", sourceElement: document.body });
  }

  async function showKeys(name) {
    const text = await fetched(`${form.dataset.keys}?run=${name}`);
    await htmx.swap({ text, target: "#keys", swap: "outerHTML", sourceElement: document.body });
  }

  function keepUrl(name, shape) {
    const url = new URL(location.href);
    url.searchParams.set("run", name);
    url.searchParams.set("shape", shape);
    history.replaceState(history.state, "", url);
  }

  function busy(on) {
    running = on;
    form.classList.toggle("is-running", on);
    form.setAttribute("aria-busy", String(on));
    for (const control of form.querySelectorAll("button, input")) control.disabled = on;
  }

  /* The first request opens the fixed window: all others are timed from its answer. */
  async function play(name, planned) {
    await send(name);
    const opened = performance.now();
    const drawing = setInterval(() => draw(name).catch(() => {}), DRAW_EVERY_MS);
    const later = (at) => new Promise((due) => setTimeout(due, at - (performance.now() - opened)));
    try {
      await Promise.all(planned.map((at) => later(at).then(() => send(name))));
    } finally {
      clearInterval(drawing);
    }
  }

  async function start() {
    if (running) return;
    const asked = new URLSearchParams(new FormData(form));
    asked.delete("run");
    busy(true);
    document.getElementById("sent").replaceChildren();
    try {
      const { run: name, at_ms: planned } = JSON.parse(await fetched(`${form.dataset.plan}?${asked}`));
      run().value = name;
      await play(name, planned);
      await draw(name);
      await showKeys(name);
      keepUrl(name, asked.get("shape"));
      document.getElementById("say").textContent = document.querySelector(".limits__say").textContent.trim();
    } catch (error) {
      tell(error);
    } finally {
      busy(false);
    }
  }

  function tell(error) {
    if (error instanceof Refused) {
      htmx.swap({ text: error.html, target: "#sent", swap: "beforeend", sourceElement: button });
    } else {
      const detail = { ctx: { sourceElement: button }, error };
      document.dispatchEvent(new CustomEvent("htmx:error", { detail }));
    }
  }

  /* Another limit or window begins another run. */
  form.addEventListener("change", (event) => {
    if (event.target.type === "range") run().value = "";
  });
  button.addEventListener("click", start);
})();
