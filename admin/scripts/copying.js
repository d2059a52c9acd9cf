// Copying to the clipboard, saving to a file, showing what is hidden.

import { announce, topDialog } from "./content.js";

const FEEDBACK_MS = 2000;

function textOf(selector) {
  const source = document.querySelector(selector);
  return source.value ?? source.textContent;
}

async function write(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Without TLS there is no clipboard to write to but by way of a selection.
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
  (topDialog() ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
}

/** Says `text` on the button for a while. What it says only to screen readers stays. */
function say(button, text) {
  const word = [...button.childNodes].find((node) => node.nodeType === Node.TEXT_NODE);
  button.dataset.label ??= word.data;
  word.data = text;
  announce(button.dataset.said && text === "Copied" ? button.dataset.said : text);
  clearTimeout(button.feedback);
  button.feedback = setTimeout(() => (word.data = button.dataset.label), FEEDBACK_MS);
}

async function copy(button) {
  try {
    await write(textOf(button.dataset.copy));
    say(button, "Copied");
  } catch {
    const range = document.createRange();
    range.selectNodeContents(document.querySelector(button.dataset.copy));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    say(button, "Press Ctrl+C");
  }
}

function download(button) {
  const file = new Blob([textOf(button.dataset.download)], { type: "text/plain" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = button.dataset.filename;
  // Not by way of the page: nothing is left there.
  link.dispatchEvent(new MouseEvent("click"));
  setTimeout(() => URL.revokeObjectURL(link.href), FEEDBACK_MS);
  announce(`Saved as ${button.dataset.filename}`);
}

function reveal(button) {
  const input = document.querySelector(button.dataset.reveal);
  const shown = input.type === "password";
  input.type = shown ? "text" : "password";
  button.textContent = shown ? "Hide" : "Show";
  button.setAttribute("aria-pressed", String(shown));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) copy(button);
  if (button.dataset.download) download(button);
  if (button.dataset.reveal) reveal(button);
});
