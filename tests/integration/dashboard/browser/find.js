// Finds what a person would point at: an element by what it is and what it is called. In a modal dialog
// only that can be reached. Also says what has the focus.
const [kind, name] = arguments;
const KINDS = {
  press: "a[href], button, summary, input[type=submit], [role=button], [role=tab]",
  field: "input:not([type=hidden], [type=submit]), select, textarea",
  any: "body *",
};

function tidy(text) {
  return (text ?? "").replace(/\s+/g, " ").trim();
}

function nameOf(element) {
  const by = element.getAttribute("aria-labelledby");
  if (by) return tidy(by.split(" ").map((id) => document.getElementById(id)?.innerText).join(" "));
  if (element.hasAttribute("aria-label")) return tidy(element.getAttribute("aria-label"));
  if (element.labels?.length) return tidy([...element.labels].map((label) => label.innerText).join(" "));
  return tidy(element.innerText || element.value) || tidy(element.title);
}

if (kind === "focused") return nameOf(document.activeElement);
const open = [...document.querySelectorAll("dialog[open]")].at(-1);
const scope = open ?? document;
if (kind === "css" || name.startsWith("#")) return scope.querySelector(name);
const shown = [...scope.querySelectorAll(KINDS[kind])].filter((element) => element.checkVisibility());
const named = shown.map((element) => [nameOf(element), element]);
const found =
  named.find(([called]) => called === name) ??
  named.find(([called]) => called.startsWith(name)) ??
  named.find(([called]) => called.includes(name));
return found?.[1] ?? null;
