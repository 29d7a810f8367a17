// SPDX-License-Identifier: Apache-2.0
// The dashboard: reads /metrics again and again and draws what changed.

import { parse, quantile } from "/pages/metrics.js";

const POINTS = 90; // readings kept
const WIDTH = 320;
const HEIGHT = 118;
const FLOOR = HEIGHT - 16; // of the curves; below it stands the time
const LEFT = 42;
const STEP = (WIDTH - LEFT) / (POINTS - 1);
const $ = (id) => document.getElementById(id);

const gauge = (name) => ({ now }) => now.values.get(`manymind_${name}`) ?? 0;
const grown = (name, { before, now }) => now.values.get(name) - (before.values.get(name) ?? 0);
const rate = (name) => (both) => grown(`manymind_${name}_total`, both) / both.seconds;
const latency = (name, share) => ({ before, now }) => {
  const key = `manymind_${name}_seconds`;
  const found = now.buckets.get(key) && quantile(share, before.buckets.get(key), now.buckets.get(key));
  return found == null ? null : 1000 * found;
};
const share = (part, whole) => (both) => {
  const total = grown(`manymind_${whole}_total`, both);
  return total > 0 ? (100 * grown(`manymind_${part}_total`, both)) / total : null;
};
const percent = (name) => (both) => 100 * gauge(name)(both);

const CARDS = [
  { title: "Requests", unit: "", lines: { running: gauge("num_requests_running"), waiting: gauge("num_requests_waiting") } },
  { title: "Tokens per second", unit: "", lines: { generated: rate("generation_tokens"), prompt: rate("prompt_tokens") } },
  { title: "KV cache", unit: "%", top: 100, lines: { used: percent("kv_cache_usage_perc"), "kept for reuse": percent("kv_cache_prefix_perc") } },
  { title: "Prefix cache hits", unit: "%", top: 100, lines: { "of prompt tokens": share("prefix_cache_hits", "prefix_cache_queries") } },
  { title: "Time to first token", unit: "ms", lines: { p50: latency("time_to_first_token", 0.5), p99: latency("time_to_first_token", 0.99) } },
  {
    title: "Time per output token",
    unit: "ms",
    lines: { p50: latency("request_time_per_output_token", 0.5), p99: latency("request_time_per_output_token", 0.99) },
  },
  { title: "Whole answers", unit: "ms", lines: { p50: latency("e2e_request_latency", 0.5), p99: latency("e2e_request_latency", 0.99) } },
  { title: "Waiting for the engine", unit: "ms", lines: { p50: latency("request_queue_time", 0.5), p99: latency("request_queue_time", 0.99) } },
  { title: "Refused, preempted per second", unit: "", lines: { refused: rate("admission_rejections"), preempted: rate("num_preemptions") } },
];

function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

// Three digits, or more for large whole numbers.
function number(value) {
  if (Number.isInteger(value) || value >= 100) return Math.round(value).toLocaleString("en");
  return value.toFixed(value >= 10 ? 1 : 2);
}

// In the colour of its line.
function coloured(index, text) {
  const element = document.createElement("span");
  element.className = `c${index}`;
  element.textContent = text;
  return element;
}

class Card {
  constructor({ title, unit, top, lines }) {
    this.unit = unit;
    this.top = top;
    this.times = [];
    this.lines = Object.entries(lines).map(([name, read]) => ({ name, read, values: [] }));
    this.figure = document.createElement("figure");
    this.figure.className = "card";
    const caption = document.createElement("figcaption");
    this.output = document.createElement("output");
    caption.append(title, this.output);
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
    this.title = title;
    this.figure.append(caption, this.svg);
    this.figure.append(this.key());
  }

  key() {
    const key = document.createElement("div");
    key.className = "key row";
    for (const [index, line] of this.lines.entries()) {
      const item = document.createElement("span");
      item.className = `c${index}`;
      item.textContent = `▬ ${line.name}`;
      key.append(item);
    }
    return key;
  }

  take(reading) {
    this.times.push(reading.now.at);
    if (this.times.length > POINTS) this.times.shift();
    for (const line of this.lines) {
      line.values.push(line.read(reading));
      if (line.values.length > POINTS) line.values.shift();
    }
    this.draw();
  }

  draw() {
    const known = this.lines.flatMap((line) => line.values.filter((value) => value !== null));
    const top = this.top ?? niceTop(Math.max(0, ...known));
    const y = (value) => FLOOR - (FLOOR - 10) * Math.min(1, value / top);
    const parts = this.axis();
    for (const value of [0, top / 2, top]) {
      parts.push(svg("path", { class: "grid", d: `M${LEFT} ${y(value)}H${WIDTH}` }));
      parts.push(svg("text", { x: LEFT - 4, y: y(value) + 3, "text-anchor": "end" }, Number(value.toPrecision(3)).toLocaleString("en")));
    }
    for (const [index, line] of this.lines.entries()) {
      parts.push(svg("path", { class: `curve c${index}`, d: this.path(line.values, y) }));
    }
    this.svg.replaceChildren(...parts);
    const texts = this.lines.map(({ name, values }) => {
      const last = values.findLast((value) => value !== null);
      return last === undefined ? "–" : number(last);
    });
    const numbers = texts.flatMap((text, index) => [index ? " / " : "", coloured(index, text)]);
    this.output.replaceChildren(...numbers, ` ${this.unit}`);
    this.svg.setAttribute("aria-label", `${this.title}: ${this.lines.map(({ name }, i) => `${name} ${texts[i]}`).join(", ")} ${this.unit}`);
  }

  // When the first reading was, where it stands, and the last.
  axis() {
    const start = WIDTH - STEP * (this.times.length - 1);
    if (WIDTH - start < 90) return [];
    const seconds = Math.round((this.times.at(-1) - this.times[0]) / 1000);
    const ago = seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
    return [
      svg("text", { x: start, y: HEIGHT - 3 }, ago),
      svg("text", { x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" }, "now"),
    ];
  }

  path(values, y) {
    const start = WIDTH - STEP * (values.length - 1);
    let pen = "M";
    return values
      .map((value, index) => {
        if (value === null) return "";
        const part = `${pen}${(start + index * STEP).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        return part;
      })
      .join("");
  }
}

function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((scale) => scale * power >= value) * power;
}

const cards = CARDS.map((card) => new Card(card));
let last = null;
let timer = 0;

async function read() {
  try {
    const answer = await fetch("/metrics", { cache: "no-store" });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const now = { ...parse(await answer.text()), at: performance.now() };
    if (last) {
      const reading = { before: last, now, seconds: (now.at - last.at) / 1000 };
      for (const card of cards) card.take(reading);
      const draining = now.values.get("manymind_draining") ? ", shutting down" : "";
      const active = now.values.get("manymind_http_requests_active") ?? 0;
      $("state").textContent = `Live: ${active} ${active === 1 ? "request" : "requests"} being answered${draining}`;
    }
    last = now;
    $("state").className = "muted";
  } catch (error) {
    $("state").textContent = `No numbers: ${error.message}`;
    $("state").className = "error";
  }
}

function schedule() {
  clearInterval(timer);
  if ($("pause").getAttribute("aria-pressed") === "false") timer = setInterval(read, Number($("period").value));
}

async function start() {
  $("cards").append(...cards.map((card) => card.figure));
  for (const card of cards) card.draw();
  await read();
  schedule();
  const answer = await fetch("/v1/models").catch(() => null);
  if (answer?.ok) $("model").textContent = (await answer.json()).data[0].id;
}

$("period").addEventListener("change", schedule);
$("pause").addEventListener("click", () => {
  const paused = $("pause").getAttribute("aria-pressed") === "false";
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Resume" : "Pause";
  schedule();
});
start();
