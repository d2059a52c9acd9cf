// The audit page: moments are filled in as the viewer's clock shows them, and a verification shows how far
// it is while the page stays.

import { announce, ask, onContent, parse, show } from "./content.js";

const LOOK_AGAIN_MS = 2000;
const VERIFICATION = "/dashboard/audit/verification";

/** `moment` as a field of dates and times has it, in the viewer's zone. */
function local(moment) {
  const shifted = new Date(moment - moment.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, moment.getSeconds() ? 19 : 16);
}

/** Has `input`, which is in UTC, show the viewer's time, and sends the moment beside it. */
function localize(input) {
  const sent = Object.assign(document.createElement("input"), { type: "hidden", name: input.name });
  input.removeAttribute("name");
  if (input.value) {
    const moment = new Date(`${input.value}Z`);
    sent.value = moment.toISOString();
    input.value = local(moment);
  }
  input.addEventListener("change", () => {
    sent.value = input.value && new Date(input.value).toISOString();
  });
  input.after(sent);
  const zone = input.labels[0]?.querySelector("[data-zone]");
  if (zone) zone.textContent = "(your time)";
}

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
  for (const input of root.querySelectorAll("input[data-utc]")) localize(input);
  if (root.querySelector("[data-under-way]")) setTimeout(chain, LOOK_AGAIN_MS);
});
