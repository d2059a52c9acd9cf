// What all scripts share: content as it arrives, and what is said of it.

// Pages are parsed and never run, and all of them are ours.
const policy = globalThis.trustedTypes?.createPolicy("sidekey", { createHTML: (text) => text });

const enhancers = [];

/** Has `enhance` look at the page now, and at all content that comes later. */
export function onContent(enhance) {
  enhancers.push(enhance);
  enhance(document.body);
}

/** The part of a page or dialog that is read out when its text changes. It has to be there before. */
const STATUS = ":scope > [data-announcements]";

/** Shows `nodes` as the content of `place`. */
export function show(place, nodes) {
  const status = place.querySelector(STATUS);
  for (const old of [...place.childNodes]) {
    if (old !== status) old.remove();
  }
  place.prepend(...nodes);
  for (const enhance of enhancers) enhance(place);
}

/** The document that `text` is. */
export function parse(text) {
  const html = policy ? policy.createHTML(text) : text;
  return new DOMParser().parseFromString(html, "text/html");
}

/** The dialog that lies above all else, if one is open. Nothing beneath it is read out. */
export function topDialog() {
  return [...document.querySelectorAll("dialog[open]")].at(-1);
}

/** Has `text` read out. The same words twice are read twice. */
export function announce(text) {
  const place = (topDialog() ?? document.body).querySelector(STATUS);
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 50);
}

/** Asks for `address`; null where the answer leads elsewhere, which is then on its way. */
export async function ask(address, options = {}) {
  const response = await fetch(address, { credentials: "same-origin", ...options });
  const elsewhere = response.headers.get("sidekey-go");
  if (elsewhere) {
    location.assign(elsewhere);
    return null;
  }
  return response;
}
