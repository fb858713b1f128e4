/* The category list stays when the shop is swapped; it says what the URL says. */
(() => {
  "use strict";
  document.addEventListener("htmx:after:history:update", () => {
    const chosen = new URL(location.href).searchParams.get("category");
    document.getElementById("category").value = chosen ?? "";
  });
})();
