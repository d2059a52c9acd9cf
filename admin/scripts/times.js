// Times in the viewer's zone. The exact UTC stays in the title.

import { onContent } from "./content.js";

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const UNITS = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** `moment` as somebody in this zone would write it. */
export function inWords(moment) {
  return full.format(moment);
}

function since(moment) {
  const seconds = (moment - Date.now()) / 1000;
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
  return relative.format(Math.trunc(seconds / length), unit);
}

onContent((root) => {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    if (!time.title) time.title = time.textContent;
    if ("relative" in time.dataset) time.textContent = since(moment);
    else time.textContent = ("day" in time.dataset ? day : full).format(moment);
  }
});
