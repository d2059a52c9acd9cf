// The audit page: a verification shows how far it is while the page stays.

import { announce, ask, onContent, parse, show } from "./content.js";

const LOOK_AGAIN_MS = 2000;
const VERIFICATION = "/dashboard/audit/verification";

/** Shows how the chain stands, as a request with `options` says. */
async function chain(options) {
  const place = document.getElementById("chain");
  place.setAttribute("aria-busy", "true");
  try {
    const response = await ask(VERIFICATION, options);
    if (!response) return;
    const found = parse(await response.text()).getElementById("chain");
    if (!found) {
      location.assign("/dashboard/audit");
      return;
    }
    show(place, [...found.childNodes]);
    const said = place.querySelector("[data-announce]")?.dataset.announce;
    if (said) announce(said);
    if (options) place.querySelector("button")?.focus();
  } catch {
    announce("Sidekey can’t be reached.");
    place.querySelector("form")?.removeAttribute("aria-busy");
  } finally {
    place.removeAttribute("aria-busy");
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-chain]") || event.defaultPrevented) return;
  event.preventDefault();
  announce("Verifying.");
  chain({ method: "POST", body: new URLSearchParams(new FormData(form)) });
});

onContent((root) => {
  if (root.querySelector("[data-under-way]")) setTimeout(chain, LOOK_AGAIN_MS);
});
