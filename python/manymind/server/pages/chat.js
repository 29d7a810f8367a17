// SPDX-License-Identifier: Apache-2.0
// The chat page: a conversation kept in this page, sent to /v1/chat/completions as a stream.

const $ = (id) => document.getElementById(id);
const messages = []; // what was said, in OpenAI's form
let pictures = []; // data URLs of the next message
let running = null; // AbortController of the answer being written
let model = "";

async function start() {
  try {
    const answer = await fetch("/v1/models");
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const { data } = await answer.json();
    model = data[0].id;
    $("model").textContent = `${model}, context of ${data[0].max_model_len} tokens`;
  } catch (error) {
    $("model").textContent = `no model: ${error.message}`;
  }
  for (const output of document.querySelectorAll("aside output")) {
    const input = $(output.htmlFor.value);
    const show = () => (output.textContent = input.value);
    input.addEventListener("input", show);
    show();
  }
}

function parameters() {
  const body = { model, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "repetition_penalty", "seed"]) {
    if ($(name).value !== "") body[name] = Number($(name).value);
  }
  return body;
}

// A message in the log; returns where its text goes.
function show(role, text, images = []) {
  $("empty")?.remove();
  const article = document.createElement("article");
  article.className = role;
  article.setAttribute("aria-label", role === "user" ? "You" : "Model");
  for (const url of images) {
    const image = document.createElement("img");
    image.src = url;
    image.alt = "attached picture";
    article.append(image);
  }
  const thought = document.createElement("div");
  thought.className = "thought";
  const what = document.createElement("div");
  what.className = "what";
  what.textContent = text;
  article.append(thought, what);
  $("log").append(article);
  $("log").scrollTop = $("log").scrollHeight;
  return { article, thought, what };
}

function userContent(text) {
  if (!pictures.length) return text;
  const parts = pictures.map((url) => ({ type: "image_url", image_url: { url } }));
  return [...parts, { type: "text", text }];
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

// Tokens per second since the first token, and how long that took.
class Speed {
  constructor() {
    this.sent = performance.now();
    this.first = 0;
    this.last = 0;
    this.pieces = 0;
  }
  count() {
    this.last = performance.now();
    this.first ||= this.last;
    this.pieces += 1;
    this.show(this.pieces);
  }
  show(tokens) {
    const seconds = (this.last - this.first) / 1000;
    // A piece may hold several tokens, the first one, too, which took no part of this time.
    const later = tokens - tokens / this.pieces;
    const rate = seconds > 0 ? `${(later / seconds).toFixed(1)} tokens/s, ` : "";
    $("speed").textContent = `${rate}${tokens} tokens, first after ${Math.round(this.first - this.sent)} ms`;
  }
}

async function answer() {
  const system = $("system").value.trim();
  const sent = system ? [{ role: "system", content: system }, ...messages] : messages;
  const place = show("assistant", "");
  const speed = new Speed();
  const mine = new AbortController();
  running = mine;
  setRunning(true);
  try {
    const reply = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...parameters(), messages: sent }),
      signal: mine.signal,
    });
    if (!reply.ok) throw new Error((await reply.json()).error?.message ?? `HTTP ${reply.status}`);
    for await (const event of events(reply.body)) take(event, place, speed);
  } catch (error) {
    if (error.name !== "AbortError") fail(place, error.message);
  }
  if (running !== mine) return; // cleared meanwhile: this belongs to no conversation
  // Turns alternate: a question without an answer is taken back.
  if (place.what.textContent) messages.push({ role: "assistant", content: place.what.textContent });
  else messages.pop();
  running = null;
  setRunning(false);
}

function take(event, place, speed) {
  if (event.error) throw new Error(event.error.message);
  const delta = event.choices?.[0]?.delta ?? {};
  if (delta.content || delta.reasoning_content) speed.count();
  place.thought.textContent += delta.reasoning_content ?? "";
  place.what.textContent += delta.content ?? "";
  if (event.usage && speed.first) speed.show(event.usage.completion_tokens);
  const log = $("log");
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 120) log.scrollTop = log.scrollHeight;
}

function fail(place, message) {
  const note = document.createElement("p");
  note.className = "error";
  note.setAttribute("role", "alert");
  note.textContent = message;
  place.article.append(note);
}

function setRunning(on) {
  $("stop").disabled = !on;
  $("send").disabled = on;
  $("log").setAttribute("aria-busy", String(on));
  if (!on) $("text").focus();
}

function showPictures() {
  $("pictures").replaceChildren(
    ...pictures.map((url, index) => {
      const item = document.createElement("li");
      const remove = document.createElement("button");
      const image = document.createElement("img");
      image.src = url;
      image.alt = `picture ${index + 1}`;
      remove.type = "button";
      remove.title = "Remove this picture";
      remove.append(image);
      remove.addEventListener("click", () => {
        pictures = pictures.filter((_, other) => other !== index);
        showPictures();
      });
      item.append(remove);
      return item;
    }),
  );
}

function addFile(file) {
  if (!file.type.startsWith("image/")) return;
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    pictures.push(reader.result);
    showPictures();
  });
  reader.readAsDataURL(file);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (running || !text) return;
  show("user", text, pictures);
  messages.push({ role: "user", content: userContent(text) });
  pictures = [];
  showPictures();
  $("text").value = "";
  answer();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("text").addEventListener("paste", (event) => [...event.clipboardData.files].forEach(addFile));
$("file").addEventListener("change", (event) => {
  [...event.target.files].forEach(addFile);
  event.target.value = "";
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  running?.abort();
  running = null;
  setRunning(false);
  messages.length = 0;
  $("log").replaceChildren();
  $("speed").textContent = "";
});

start();
