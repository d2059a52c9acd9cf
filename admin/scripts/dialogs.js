// Forms and questions in a dialog over the page. Their addresses are pages of their own as well.

import { announce, ask, onContent, parse, show } from "./content.js";

const dialog = document.getElementById("dialog");
const leave = document.getElementById("leave");
const FRAGMENT = { "sidekey-fragment": "dialog" };

let opener = null;
// Where to go when the dialog is closed: what is behind it has changed.
let after = null;

/** The element whose content must not be left by accident, if there is one. */
function guarded() {
  return document.querySelector("[data-confirm-leave]");
}

function fill(text) {
  show(dialog, [...parse(text).body.childNodes]);
  after = dialog.querySelector("[data-after]")?.dataset.after ?? null;
  // Where nothing may get lost, only our own question leads out.
  dialog.setAttribute("closedby", guarded() ? "none" : "closerequest");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const first = dialog.querySelector("[aria-invalid=true]") ?? dialog.querySelector("[autofocus]");
  (first ?? dialog.querySelector("h1"))?.focus();
  const said = dialog.querySelector("[data-announce]")?.dataset.announce;
  if (said) announce(said);
}

function failed() {
  const detail = "Sidekey can’t be reached. Look again what there is before you try again.";
  let place = dialog.querySelector("#unreachable");
  if (!place) {
    place = Object.assign(document.createElement("p"), { id: "unreachable", className: "notice bad" });
    (dialog.querySelector(".dialog-body") ?? dialog).prepend(place);
  }
  place.textContent = detail;
  announce(detail);
}

async function open(link) {
  opener = link;
  try {
    const response = await ask(link.href, { headers: FRAGMENT });
    if (response) fill(await response.text());
  } catch {
    // The page itself may fare better.
    location.assign(link.href);
  }
}

async function send(form, submitter) {
  if (form.getAttribute("aria-busy") === "true") return;
  form.setAttribute("aria-busy", "true");
  try {
    const body = new URLSearchParams(new FormData(form, submitter));
    const response = await ask(form.action, { method: "POST", headers: FRAGMENT, body });
    if (response) fill(await response.text());
  } catch {
    failed();
  } finally {
    form.removeAttribute("aria-busy");
  }
}

function close() {
  dialog.close();
}

/** `link`, or what stands for it where its part of the page was replaced meanwhile. */
function successor(link) {
  if (!link || link.isConnected) return link;
  return [...document.querySelectorAll("a[data-dialog]")].find((one) => one.href === link.href);
}

/** Lets `go` happen, once it is sure that nothing gets lost. */
function leaving(go) {
  if (!guarded()) {
    go();
    return;
  }
  leave.onclose = () => {
    if (leave.returnValue !== "leave") return;
    guarded()?.removeAttribute("data-confirm-leave");
    go();
  };
  leave.returnValue = "";
  leave.showModal();
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("a, button");
  if (!target || event.defaultPrevented || event.button !== 0) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  if (target.matches("a[data-dialog]")) {
    event.preventDefault();
    open(target);
  } else if (target.matches("[data-close]") && dialog.contains(target)) {
    event.preventDefault();
    leaving(close);
  } else if (target.matches("[data-saved]")) {
    // Whoever says so has saved it.
    guarded()?.removeAttribute("data-confirm-leave");
    if (dialog.contains(target) && !after) {
      event.preventDefault();
      close();
    }
  } else if (target.matches("[data-stay]")) {
    leave.close("stay");
  } else if (target.matches("[data-leave]")) {
    leave.close("leave");
  } else if (target.matches("a[href]") && !target.download && target.target !== "_blank" && guarded()) {
    event.preventDefault();
    leaving(() => location.assign(target.href));
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!dialog.contains(form) || form.method !== "post") return;
  event.preventDefault();
  send(form, event.submitter);
});

// A browser that is asked to close a dialog again and again closes it, whoever objects; and the question
// with it. Where a key is shown, it is not asked.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !dialog.open || !guarded()) return;
  event.preventDefault();
  if (leave.open) leave.close("stay");
  else leaving(close);
});

dialog.addEventListener("cancel", (event) => {
  if (event.target !== dialog || !guarded()) return;
  event.preventDefault();
  leaving(close);
});

dialog.addEventListener("close", (event) => {
  if (event.target !== dialog) return;
  // Nothing of it stays in the page, least of all a key.
  show(dialog, []);
  if (after) {
    location.assign(after);
    return;
  }
  successor(opener)?.focus();
  opener = null;
});

addEventListener("beforeunload", (event) => {
  if (guarded()) event.preventDefault();
});

// A browser may take a page from its memory: one with a key must not come back. Not loaded again, which
// would send a form once more where the page answered one: what is at its address is asked for.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.replace(location.pathname + location.search);
});

// Plain pages: one form, sent once.
onContent((root) => {
  for (const form of root.querySelectorAll("form[method=post]")) {
    if (dialog.contains(form)) continue;
    form.addEventListener("submit", (event) => {
      if (form.getAttribute("aria-busy") === "true") event.preventDefault();
      else form.setAttribute("aria-busy", "true");
    });
  }
});
