// Parts of a page that change while the rest stays: filters that apply as they are typed, and links that
// lead to the same page with something else in it.

import { announce, ask, onContent, parse, show } from "./content.js";

const TYPING_PAUSE_MS = 250;
// What can't be meant yet, half an id say, is asked for when somebody really stops.
const UNFINISHED_PAUSE_MS = 1200;
let asked = null;

// A click goes to what was pressed, if that is still there: nothing is replaced under a pressed pointer.
let isPressed = false;
let waiting = [];
addEventListener("pointerdown", () => (isPressed = true), true);
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(
    end,
    () => {
      isPressed = false;
      const all = waiting;
      waiting = [];
      // The click comes first.
      setTimeout(() => all.forEach((go) => go()));
    },
    true,
  );
}

/** Waits until no button of the pointer is down. */
function released() {
  return isPressed ? new Promise((go) => waiting.push(go)) : null;
}

/** Shows the part `selector` as it is at `address`. */
async function swap(address, selector) {
  asked?.abort();
  const controller = (asked = new AbortController());
  const place = document.querySelector(selector);
  place.setAttribute("aria-busy", "true");
  try {
    const response = await ask(address, { signal: controller.signal });
    if (!response) return;
    const found = parse(await response.text()).querySelector(selector);
    await released();
    if (controller.signal.aborted) return;
    if (!found) {
      location.assign(address);
      return;
    }
    show(place, [...found.childNodes]);
    history.replaceState(null, "", response.redirected ? response.url : address);
    const said = place.querySelector("[data-announce]")?.dataset.announce;
    if (said) announce(said);
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
  } finally {
    if (asked === controller) place.removeAttribute("aria-busy");
  }
}

/** A key that somebody has pasted: its beginning finds it, and all of it must not get into an address. */
const KEY = /\b([a-z][a-z0-9]{1,15}_(?:live|test)_([0-9A-Za-z]{12}))_[0-9A-Za-z]+/g;

function withoutSecrets(form) {
  for (const input of form.querySelectorAll("input")) {
    if (input.value.search(KEY) >= 0) input.value = input.value.replace(KEY, "$2");
  }
}

/** Where a form leads with what is filled in. */
function address(form) {
  withoutSecrets(form);
  const fields = [...new FormData(form)].filter(([, value]) => value !== "");
  const query = new URLSearchParams(fields).toString();
  // Not its property, which a field of that name hides.
  return form.getAttribute("action").split("?")[0] + (query && `?${query}`);
}

onContent((root) => {
  for (const form of root.querySelectorAll("form[data-live]")) {
    let pause = null;
    let applied = address(form);
    const apply = () => {
      clearTimeout(pause);
      applied = address(form);
      swap(applied, form.dataset.live);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      apply();
    });
    // Whoever leaves a field whose text was applied as it was typed has changed nothing more.
    form.addEventListener("change", () => {
      if (address(form) !== applied) apply();
    });
    form.addEventListener("input", (event) => {
      if (!event.target.matches("input[type=search], input[type=text]")) return;
      clearTimeout(pause);
      pause = setTimeout(apply, event.target.validity.valid ? TYPING_PAUSE_MS : UNFINISHED_PAUSE_MS);
    });
  }
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const name = link.textContent.trim();
  const selector = link.dataset.swap;
  swap(link.href, selector).then(() => {
    // The link was replaced: whoever pressed it goes on from its successor, or from where it would be.
    const place = document.querySelector(selector);
    const links = [...place.querySelectorAll("a[data-swap]")];
    const next = links.find((one) => one.href === link.href) ?? links.find((one) => one.textContent.trim() === name);
    if (!next) place.tabIndex = -1;
    (next ?? place).focus();
  });
});
