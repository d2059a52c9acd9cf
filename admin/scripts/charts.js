// Exact values of charts: under the pointer, under a finger, and by the arrow keys. What is told is what
// stands in each chart's table. A chart is one stop of the Tab key: an invisible slider over the plot, so
// that arrows, Home, End, Page Up and Page Down do what they do everywhere, and screen readers read what
// is told.

import { onContent } from "./content.js";

const SVG = "http://www.w3.org/2000/svg";
// Hours up to this many have some hours below them; more have days.
const HOURS_MAX = 48;
const HOURS_STEP = 3;
const HOUR_MS = 3_600_000;
const LENGTHS_MS = { hour: HOUR_MS, day: 24 * HOUR_MS };
const EDGE_PERCENT = 4;
// Pixels between a place and what is told of it.
const DISTANCE = 12;

const isUtc = Intl.DateTimeFormat().resolvedOptions().timeZone === "UTC";
const format = (options) => new Intl.DateTimeFormat(undefined, options);
const clock = format({ hour: "numeric", minute: "2-digit" });
const hours = { weekday: "short", day: "numeric", month: "short", hour: "numeric", minute: "2-digit" };
const span = format(hours);
const clockUtc = format({ ...hours, timeZone: "UTC" });
const shortDay = format({ day: "numeric", month: "short" });
const longDayUtc = format({ weekday: "short", day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

const all = new Set();

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.area = figure.querySelector(".chart-area");
    this.plot = figure.querySelector(".chart-plot");
    this.interval = figure.dataset.interval;
    this.columns = [...figure.querySelectorAll("thead th")].slice(1).map((cell) => ({
      name: cell.textContent,
      series: [...cell.classList].find((name) => name.startsWith("series-")),
    }));
    this.rows = [...figure.querySelectorAll("tbody tr")].map((row) => ({
      start: new Date(row.dataset.start),
      values: [...row.querySelectorAll("td")].map((cell) => cell.textContent),
    }));
    if (this.rows.length === 0) return;
    this.points = figure.dataset.chart === "line" ? this.readPoints() : [];
    this.addParts();
    this.listen();
    if (this.interval === "hour" && !isUtc) this.tellLocalTimes();
    all.add(this);
  }

  // Where the lines go through: by series, by place, from the top in percent.
  readPoints() {
    const [, , width, height] = this.plot.querySelector("svg").getAttribute("viewBox").split(" ").map(Number);
    return [...this.plot.querySelectorAll(".chart-over")].map((path) => {
      const series = [...path.classList].find((name) => name.startsWith("series-"));
      const tops = new Map();
      for (const [, x, y] of path.getAttribute("d").matchAll(/(\d+) (\d+)/g)) {
        tops.set(Math.floor((x / width) * this.rows.length), (y / height) * 100);
      }
      return { series, tops };
    });
  }

  addParts() {
    this.band = svg("rect", { class: "chart-band", y: "0", height: "100%", width: `${100 / this.rows.length}%`, visibility: "hidden" });
    this.plot.prepend(this.band);
    this.dots = svg("g", {});
    this.plot.append(this.dots);
    this.tip = element("div", "chart-tip");
    this.tip.hidden = true;
    this.tip.setAttribute("aria-hidden", "true");
    this.range = element("input", "chart-range");
    this.range.type = "range";
    this.range.min = "0";
    this.range.max = String(this.rows.length - 1);
    this.range.value = this.range.max;
    this.range.setAttribute("aria-label", `${this.figure.querySelector("h3").textContent}: exact values`);
    this.range.setAttribute("aria-describedby", `${this.figure.id}-summary`);
    this.range.setAttribute("aria-valuetext", this.told(this.rows.length - 1));
    this.area.append(this.range, this.tip);
  }

  listen() {
    this.range.addEventListener("input", () => this.show(Number(this.range.value)));
    this.range.addEventListener("focus", () => {
      if (this.range.matches(":focus-visible")) this.show(Number(this.range.value));
    });
    this.range.addEventListener("blur", () => this.hide());
    const follow = (event) => this.show(this.placeAt(event.clientX));
    this.area.addEventListener("pointermove", follow);
    this.area.addEventListener("pointerdown", follow);
    this.area.addEventListener("pointerleave", (event) => {
      // A finger that is lifted leaves what it has found.
      if (event.pointerType === "touch") return;
      if (this.range.matches(":focus-visible")) this.show(Number(this.range.value));
      else this.hide();
    });
  }

  placeAt(clientX) {
    const { left, width } = this.area.getBoundingClientRect();
    const place = Math.floor(((clientX - left) / width) * this.rows.length);
    return Math.min(Math.max(place, 0), this.rows.length - 1);
  }

  // Whether a row"s time is not over yet.
  isOpen(row) {
    return row.start.getTime() + LENGTHS_MS[this.interval] > Date.now();
  }

  // When a row is, for the viewer, and the same in UTC where it is another.
  when(row) {
    const more = this.isOpen(row) ? ", so far" : "";
    if (this.interval === "day") return { here: `${longDayUtc.format(row.start)} (UTC)${more}` };
    const end = new Date(row.start.getTime() + LENGTHS_MS[this.interval]);
    const here = span.formatRange(row.start, end);
    if (isUtc) return { here: `${here} UTC${more}` };
    return { here: `${here}${more}`, there: `from ${clockUtc.format(row.start)} UTC` };
  }

  told(place) {
    const row = this.rows[place];
    const values = this.columns.map(({ name }, at) => `${name} ${row.values[at]}`);
    return `${this.when(row).here}: ${values.join(", ")}`;
  }

  show(place) {
    for (const other of all) if (other !== this && !other.isBeside(this)) other.hide();
    for (const other of all) if (other !== this && other.isBeside(this)) other.mark(place, false);
    this.mark(place, true);
    const told = this.told(place);
    this.range.value = String(place);
    this.range.setAttribute("aria-valuetext", told);
  }

  // Charts of the same times on one page show the same place.
  isBeside(other) {
    return this.interval === other.interval && this.rows.length === other.rows.length
      && this.figure.closest("[data-charts]") === other.figure.closest("[data-charts]");
  }

  mark(place, isTold) {
    const left = (100 * place) / this.rows.length;
    const middle = left + 50 / this.rows.length;
    this.band.setAttribute("x", `${left}%`);
    this.band.setAttribute("visibility", "visible");
    this.dots.replaceChildren();
    for (const { series, tops } of this.points) {
      if (!tops.has(place)) continue;
      this.dots.append(svg("circle", { class: `chart-dot ${series}`, r: "4.5", cx: `${middle}%`, cy: `${tops.get(place)}%` }));
    }
    this.tip.hidden = !isTold;
    if (isTold) this.fillTip(place, middle);
  }

  fillTip(place, middle) {
    const row = this.rows[place];
    const { here, there } = this.when(row);
    const list = element("ul");
    this.columns.forEach(({ name, series }, at) => {
      const item = element("li", series ? "" : "chart-sum");
      if (series) {
        const swatch = svg("svg", { class: `chart-swatch ${series}`, width: "10", height: "10" });
        swatch.append(svg("rect", { width: "10", height: "10", rx: "2" }));
        item.append(swatch);
      }
      item.append(element("span", "", name), element("span", "", row.values[at]));
      list.append(item);
    });
    const head = element("p", "", here);
    this.tip.replaceChildren(head, list);
    if (there) head.after(element("div", "muted", there));
    this.placeTip(middle / 100);
  }

  // Beside the place, or above the plot where there is no room beside.
  placeTip(part) {
    const room = this.area.clientWidth;
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const at = room * part;
    const side = Math.max(at, room - at) - DISTANCE;
    const wanted = part > 0.5 ? at - DISTANCE - width : at + DISTANCE;
    const fits = width <= side;
    const left = fits ? wanted : at - width / 2;
    this.tip.style.left = `${Math.max(Math.min(left, room - width), 0)}px`;
    this.tip.style.top = fits ? "0" : `${-height - DISTANCE}px`;
  }

  hide() {
    this.band.setAttribute("visibility", "hidden");
    this.dots.replaceChildren();
    this.tip.hidden = true;
  }

  // Hours below the plot as the viewer's clocks show them.
  tellLocalTimes() {
    const times = this.figure.querySelector(".chart-times");
    const few = this.rows.length <= HOURS_MAX;
    times.replaceChildren();
    let days = 0;
    this.rows.forEach(({ start }, place) => {
      const hour = start.getHours();
      if (hour % (few ? HOURS_STEP : 24) !== 0) return;
      const x = (100 * (place + 0.5)) / this.rows.length;
      const anchor = x < EDGE_PERCENT ? "start" : x > 100 - EDGE_PERCENT ? "end" : "middle";
      const label = svg("text", { x: `${x}%`, y: "16", "text-anchor": anchor });
      label.textContent = hour === 0 ? shortDay.format(start) : clock.format(start);
      const isMinor = few ? hour % (2 * HOURS_STEP) !== 0 : days % 2 !== 0;
      if (isMinor) label.classList.add("minor");
      days += 1;
      times.append(label);
    });
  }
}

onContent((root) => {
  for (const chart of all) if (!chart.figure.isConnected) all.delete(chart);
  for (const figure of root.querySelectorAll("figure[data-chart]")) new Chart(figure);
});

const hideAll = () => all.forEach((chart) => chart.hide());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideAll();
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest?.(".chart-area")) hideAll();
});
