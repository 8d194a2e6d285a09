// Texts become text nodes and nothing else: no HTML is made of what someone typed or a server said.
import { WORDS } from "./words.js";

const find = (id) => document.getElementById(id);
const query = find("query"), texts = find("documents"), key = find("key"), status = find("status");
const results = find("results"), problem = find("problem");
let language = navigator.languages.some((tag) => /^(nb|nn|no)\b/i.test(tag)) ? "nb" : "en";
let shown = null; // what status and results say, to say it again in the other language

const LONG = 400; // characters of a text that may not fit its place
const MARGIN = 24; // pixels of a long text above its marked part
const narrow = matchMedia("(max-width: 60rem)"); // where the ranking stands below the form; see page.css

const words = () => WORDS[language];

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// As the hint says: blank lines separate documents where there are any, else each line is one.
function split(text) {
  const clean = text.replace(/\r\n?/g, "\n").replace(/^\s*\n|\s+$/g, "");
  const parts = /\n[^\S\n]*\n/.test(clean) ? clean.split(/\n(?:[^\S\n]*\n)+/) : clean.split("\n");
  return parts.map((part) => part.trim()).filter(Boolean);
}

function say(kind, ...values) {
  shown = { ...shown, status: [kind, values] };
  const word = words()[kind];
  status.textContent = typeof word === "function" ? word(...values) : word;
}

function fail(kind, ...values) {
  shown = { ...shown, problem: kind && [kind, values] };
  const word = kind ? words()[kind] : "";
  problem.textContent = typeof word === "function" ? word(...values) : word;
  problem.hidden = !kind;
}

// A server counts characters as code points, JavaScript in halves of some.
function marked(text, span) {
  const points = Array.from(text);
  const [start, end] = span;
  const mark = element("mark", "", points.slice(start, end).join(""));
  return [points.slice(0, start).join(""), mark, points.slice(end).join("")];
}

function row(hit, documents, best) {
  const text = documents[hit.index];
  const whole = !hit.span || (hit.span[0] === 0 && hit.span[1] >= Array.from(text).length);
  const share = best > 0 ? Math.max(0, Math.min(1, hit.relevance_score / Math.max(1, best))) : 0;
  const meter = element("div", "meter");
  const bar = element("div", "bar");
  bar.style.setProperty("width", `${(100 * share).toFixed(1)}%`);
  meter.append(bar);
  meter.setAttribute("aria-hidden", "true");
  const score = element("span", "score", hit.relevance_score.toFixed(4));
  score.title = words().score;
  const place = element("span", "place", `#${hit.index + 1}`);
  place.title = words().raw;
  const head = element("div", "head", score, meter, place);
  const notes = [!whole && words().best, hit.truncated && words().truncated].filter(Boolean);
  const body = element("p", "text", ...(whole ? [text] : marked(text, hit.span)));
  if (text.length > LONG) body.tabIndex = 0; // it scrolls, with the keyboard too
  const item = element("li", "", head, body);
  if (notes.length) item.append(element("p", "note", notes.join(" · ")));
  return item;
}

function show(answer, documents, milliseconds) {
  shown = { ...shown, answer: [answer, documents, milliseconds] };
  const best = answer.results.length ? answer.results[0].relevance_score : 0;
  results.replaceChildren(...answer.results.map((hit) => row(hit, documents, best)));
  say("done", answer.results.length, milliseconds, answer.usage.total_tokens);
  for (const mark of results.querySelectorAll("mark")) mark.parentElement.scrollTop = mark.offsetTop - MARGIN;
  if (answer.partial) status.append(" ", words().partial(answer.unscored.length));
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function address() {
  return new URL("rerank", document.baseURI).href;
}

function curl(body) {
  const lines = [`curl ${quoted(address())}`, "-H 'content-type: application/json'"];
  if (key) lines.push('-H "authorization: Bearer $RASKRANK_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

let running = null;

async function rank() {
  const documents = split(texts.value), asked = query.value.trim();
  if (!asked) return refuse("no_query", query);
  if (!documents.length) return refuse("no_documents", texts);
  running?.abort();
  const mine = (running = new AbortController());
  const body = { query: asked, documents, ...(find("windows").checked ? { long_documents: "windows" } : {}) };
  find("curl").textContent = curl(body);
  fail(null);
  say("ranking_now");
  results.setAttribute("aria-busy", "true");
  const headers = { "content-type": "application/json" };
  if (key?.value) headers.authorization = `Bearer ${key.value}`;
  const start = performance.now();
  try {
    const response = await fetch(address(), { method: "POST", headers, body: JSON.stringify(body), signal: mine.signal });
    const answer = await response.json();
    if (response.ok) {
      show(answer, documents, Math.round(performance.now() - start));
      find("same").hidden = false;
      if (narrow.matches) find("ranking").scrollIntoView();
    } else {
      failed(response, answer);
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    nothing();
    fail("unreachable");
  }
  results.removeAttribute("aria-busy");
}

function refuse(kind, field) {
  fail(kind);
  field.focus();
}

function nothing() {
  shown = { ...shown, answer: null };
  results.replaceChildren();
  say("empty");
}

function failed(response, answer) {
  nothing();
  const seconds = response.headers.get("retry-after");
  if (response.status === 401) fail("unauthorized");
  else if (response.status === 429) fail("again", seconds);
  else fail("refused", response.status, answer.message ?? answer.error);
}

function speak() {
  document.documentElement.lang = language;
  for (const place of document.querySelectorAll("[data-words]")) {
    if (place !== status) place.textContent = words()[place.dataset.words];
  }
  const button = find("language");
  button.textContent = words().other;
  button.lang = words().otherCode;
  counted();
  if (shown?.answer) show(...shown.answer);
  else say(...(shown?.status ? [shown.status[0], ...shown.status[1]] : ["empty"]));
  if (shown?.problem) fail(shown.problem[0], ...shown.problem[1]);
}

function counted() {
  const documents = split(texts.value);
  find("count").textContent = documents.length ? words().count(documents.length) : "";
}

async function model() {
  const response = await fetch(new URL("ready", document.baseURI)).catch(() => null);
  if (response?.ok) {
    const name = (await response.json()).model;
    find("model").textContent = name;
    document.title = `Raskrank · ${name}`;
  } else {
    if (!shown?.answer) say(response ? "loading" : "unreachable");
    setTimeout(model, 1000);
    return;
  }
  if (shown?.status?.[0] === "loading" || shown?.status?.[0] === "unreachable") say("empty");
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  rank();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) rank();
});
texts.addEventListener("input", counted);
find("language").addEventListener("click", () => {
  language = words().otherCode;
  speak();
});
find("example").addEventListener("click", () => {
  query.value = words().sample.query;
  texts.value = words().sample.documents.join("\n");
  counted();
  rank();
});
find("copy").addEventListener("click", async () => {
  getSelection().selectAllChildren(find("curl"));
  if (!navigator.clipboard) return; // browsers have it on https and this machine alone; elsewhere the line is selected
  await navigator.clipboard.writeText(find("curl").textContent);
  find("copy").textContent = words().copied;
  setTimeout(() => (find("copy").textContent = words().copy), 1500);
});
speak();
model();
