// The form of a key: times in the viewer's zone, more rows for limits.

import { announce, onContent } from "./content.js";

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** `moment` as a `datetime-local` field shows it here. */
function toField(moment) {
  const local = new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, moment.getUTCSeconds() ? 19 : 16);
}

/** What is sent is UTC; what is shown and written is the viewer's time. */
function localise(input) {
  const sent = Object.assign(document.createElement("input"), { type: "hidden", name: input.name, value: input.value });
  input.removeAttribute("name");
  const shown = new Date(`${input.value}Z`);
  if (!Number.isNaN(shown.getTime())) input.value = toField(shown);
  input.after(sent);
  input.addEventListener("input", () => {
    const moment = new Date(input.value);
    const isMoment = !Number.isNaN(moment.getTime());
    sent.value = isMoment ? moment.toISOString().slice(0, moment.getUTCSeconds() ? 19 : 16) : "";
  });
  document.querySelector(input.dataset.utc).textContent = `In your time zone, ${zone}.`;
}

/** A blank row behind the others, with ids of its own. */
function addRow(rows) {
  const all = rows.querySelectorAll(".limit-row");
  const row = all[all.length - 1].cloneNode(true);
  const number = all.length;
  for (const error of row.querySelectorAll(".error")) error.remove();
  for (const part of row.querySelectorAll("[id], [for]")) {
    const name = part.id ? "id" : "for";
    part.setAttribute(name, part.getAttribute(name).replace(/-\d+$/, `-${number}`));
  }
  for (const input of row.querySelectorAll("input")) {
    input.value = "";
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
    input.removeAttribute("autofocus");
  }
  row.querySelector("legend").textContent = `Limit ${number + 1}`;
  row.hidden = false;
  all[all.length - 1].after(row);
  return row;
}

/** Shows the rows that are written in, and one more by a button. */
function limits(rows) {
  const button = rows.querySelector("[data-add-limit]");
  const most = Number(button.dataset.max);
  const isBlank = (row) => [...row.querySelectorAll("input")].every((input) => !input.value);
  const all = () => [...rows.querySelectorAll(".limit-row")];
  all().forEach((row, number) => (row.hidden = number > 0 && isBlank(row) && !row.querySelector(".error")));
  const offer = () => (button.hidden = all().filter((row) => !row.hidden).length >= most);
  offer();
  button.addEventListener("click", () => {
    const row = all().find((row) => row.hidden) ?? addRow(rows);
    row.hidden = false;
    row.querySelector("input").focus();
    announce("A row for another limit");
    offer();
  });
}

onContent((root) => {
  for (const input of root.querySelectorAll("input[data-utc]")) localise(input);
  for (const rows of root.querySelectorAll("[data-limit-rows]")) limits(rows);
});
