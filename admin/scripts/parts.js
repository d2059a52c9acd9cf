// Tabs and menus.

import { onContent } from "./content.js";

/** Turns a `[data-tabs]` of sections with headings into tabs (the pattern of WAI-ARIA). */
function tabs(place) {
  const sections = [...place.querySelectorAll(":scope > [data-tab]")];
  const list = Object.assign(document.createElement("div"), { className: "tabs" });
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", place.dataset.tabs);
  const buttons = sections.map((section, number) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: section.dataset.tab });
    button.id = `${section.id}-tab`;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", section.id);
    section.setAttribute("role", "tabpanel");
    section.setAttribute("aria-labelledby", button.id);
    section.querySelector("[data-tab-heading]")?.remove();
    button.addEventListener("click", () => choose(number));
    return button;
  });
  function choose(chosen, focus = false) {
    buttons.forEach((button, number) => {
      button.setAttribute("aria-selected", String(number === chosen));
      button.tabIndex = number === chosen ? 0 : -1;
      sections[number].hidden = number !== chosen;
    });
    if (focus) buttons[chosen].focus();
  }
  list.addEventListener("keydown", (event) => {
    const now = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const next = { ArrowLeft: now ? now - 1 : last, ArrowRight: now < last ? now + 1 : 0, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose(next, true);
  });
  list.append(...buttons);
  place.prepend(list);
  choose(0);
}

onContent((root) => {
  for (const place of root.querySelectorAll("[data-tabs]")) tabs(place);
});

function closeMenus(except) {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (menu !== except) menu.open = false;
  }
}

document.addEventListener("click", (event) => {
  const item = event.target.closest(".menu-items a");
  closeMenus(item ? null : event.target.closest("details.menu"));
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = document.activeElement?.closest?.("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
