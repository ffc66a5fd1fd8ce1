// The monitor's page. It draws what the server says and sends orders; everything a file or a user named is set as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const WORDS = { decides: "decides", acquires: "acquires", reconstructs: "reconstructs", paused: "paused", waits: "waits for your verdict",
  finished: "finished", stopped: "stopped", ended: "its process has ended", silent: "no news for long: it may have ended", problem: "problem" };
const NEW = "#ff9a00", EARLIER = "#9fd3ff", PROPOSED = "#e5007d";
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const NAMES = { agreement: "with the one before", ssim: "SSIM", ssim_aligned: "SSIM, aligned",
  correlation: "correlation with the reference" };
const TASKS = ["decide", "acquire", "reconstruct"];
let facts = null, specimen = null, following = true, drawn = {}, asking = 0;

const stream = new EventSource("api/events");
stream.onmessage = (event) => { facts = JSON.parse(event.data); update(); };
stream.onerror = () => { pill("no connection to the monitor", "bad"); enable(false); };

async function update() {
  const mine = ++asking;
  head();
  const count = facts.done, slider = byId("shown");
  slider.max = Math.max(1, count);
  slider.disabled = byId("live").disabled = count < 2;
  if (following) slider.value = slider.max;
  const found = await (await fetch(`api/specimen/${chosen()}`)).json();
  if (mine !== asking) return; // there is newer news
  specimen = found;
  await show();
}

function chosen() { return Number(byId("specimen").value || 0); }

async function show() {
  const count = facts.done, number = Math.min(Number(byId("shown").value), count);
  byId("shown-number").textContent = count ? `${number} of ${facts.subsequences}` : "–";
  byId("live").hidden = following;
  await Promise.all(["phase", "dose"].map((kind) => picture(kind, number)));
  budget(); quality(); agreement(); latency(); log();
  document.body.dataset.version = facts.version; // for whoever waits until it is drawn
}

function head() {
  document.title = `${facts.name}: ${WORDS[facts.doing]}`;
  byId("name").textContent = facts.name;
  byId("title").textContent = `${facts.title}, policy ${facts.policy}`;
  pill(WORDS[facts.doing], { waits: "asks", paused: "asks", silent: "bad", ended: "bad", problem: "bad" }[facts.doing] || "");
  const left = facts.seconds_left && facts.doing !== "finished" ? `, about ${span(facts.seconds_left)} left` : "";
  byId("progress").textContent =
    `${facts.done} of ${facts.subsequences} sub-sequences, ${facts.positions} of ${facts.positions_total} positions${left}`;
  byId("problem").hidden = !facts.problem;
  byId("problem").textContent = facts.problem;
  enable(facts.controlled);
  byId("asks").checked = facts.asks;
  const asked = facts.doing === "waits" && facts.proposal;
  byId("verdict").hidden = !asked;
  if (asked) {
    const again = facts.proposal.attempt ? `, proposal ${facts.proposal.attempt + 1}` : "";
    const random = facts.proposal.random ? " (at random: the policy has no other proposal)" : "";
    byId("question").textContent = `Go to the marked positions of sub-sequence ${facts.proposal.number + 1}${again}?${random}`;
  }
  const select = byId("specimen");
  if (!select.options.length) {
    for (let b = 0; b < facts.specimens; b++) select.add(new Option(b + 1, b));
    byId("which").hidden = facts.specimens < 2;
  }
}

function pill(text, kind) { const at = byId("doing"); at.textContent = text; at.className = `pill ${kind}`; }

function enable(on) {
  for (const button of document.querySelectorAll("nav button, nav input")) button.disabled = !on;
  if (!on || !facts) return;
  document.querySelector("[data-word=pause]").disabled = facts.doing === "paused";
  document.querySelector("[data-word=resume]").disabled = facts.doing !== "paused";
}

async function picture(kind, number) {
  const canvas = byId(kind), [high, wide] = facts.field, key = `${kind} ${chosen()} ${number}`;
  if (number && drawn[kind]?.key !== key) {
    const answer = await fetch(`api/picture/${kind}/${chosen()}/${number - 1}.png`);
    if (!answer.ok) return;
    const image = await createImageBitmap(await answer.blob());
    drawn[kind] = { key, image, low: Number(answer.headers.get("x-low")), high: Number(answer.headers.get("x-high")) };
  }
  const side = 900, scale = side / Math.max(high, wide);
  canvas.width = Math.round(wide * scale);
  canvas.height = Math.round(high * scale);
  const pen = canvas.getContext("2d"), now = drawn[kind];
  pen.imageSmoothingEnabled = false;
  if (now && number) {
    pen.drawImage(now.image, 0, 0, canvas.width, canvas.height);
    byId(`${kind}-low`).textContent = kind === "phase" ? short(now.low) : "0";
    byId(`${kind}-high`).textContent = `${short(now.high)} ${kind === "phase" ? "rad" : "e/Å²"}`;
  }
  if (kind === "phase") dots(pen, canvas, number);
  bar(pen, canvas, wide);
}

function dots(pen, canvas, number) {
  if (!byId("dots").checked) return;
  const until = sum(specimen.counts.slice(0, number)), since = sum(specimen.counts.slice(0, number - 1));
  const size = Math.max(2.5, Math.min(7, 90 / Math.sqrt(until + 1)));
  const point = ([y, x], radius) => { pen.beginPath(); pen.arc(x * canvas.width, y * canvas.height, radius, 0, 7); };
  specimen.taken.slice(0, until).forEach((at, k) => {
    point(at, k < since ? 0.75 * size : size);
    pen.fillStyle = k < since ? EARLIER : NEW;
    pen.fill();
    if (k >= since) { pen.lineWidth = 1; pen.strokeStyle = "#000"; pen.stroke(); }
  });
  if (number !== facts.done) return;
  for (const at of specimen.proposed) {
    for (const [width, colour] of [[5, "#fff"], [2.5, PROPOSED]]) {
      point(at, size + 3); pen.lineWidth = width; pen.strokeStyle = colour; pen.stroke();
    }
  }
}

function bar(pen, canvas, wide) {
  const longest = wide / 3, decade = 10 ** Math.floor(Math.log10(longest));
  const length = decade * [5, 2, 1].find((m) => m * decade <= longest), pixels = (length / wide) * canvas.width;
  const x = 0.04 * canvas.width, y = 0.95 * canvas.height;
  pen.font = "600 26px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const [width, colour] of [[12, "#000"], [7, "#fff"]]) {
    pen.lineWidth = width; pen.strokeStyle = colour; pen.fillStyle = colour;
    pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x + pixels, y); pen.stroke();
    pen.lineWidth = 5;
    const text = length >= 10 ? `${length / 10} nm` : `${length} Å`;
    if (colour === "#000") pen.strokeText(text, x + pixels / 2, y - 14); else pen.fillText(text, x + pixels / 2, y - 14);
  }
}

function budget() {
  const rows = [
    ["positions left", facts.positions_total - specimen.taken.length],
    ["electrons spent", short(specimen.electrons)],
    ["electrons left", specimen.electrons_left === null ? "–" : short(specimen.electrons_left)],
    ["mean dose", `${short(specimen.mean_dose)} e/Å²`],
    ["peak dose", `${short(specimen.peak_dose)} e/Å²`, specimen.above],
  ];
  if (specimen.peak_proposed !== null) {
    const over = facts.limit !== null && specimen.peak_proposed > facts.limit;
    rows.push(["peak with the proposal", `${short(specimen.peak_proposed)} e/Å²`, over]);
  }
  rows.push(["dose limit", facts.limit === null ? "none given" : `${short(facts.limit)} e/Å²`]);
  list("budget", rows);
  byId("dose-legend").textContent = facts.limit === null ? "Give --limit to mark where too much was sent."
    : specimen.above ? "Orange: above the limit." : "Nothing is above the limit.";
}

function quality() {
  const last = (values) => (values.length ? values[values.length - 1] : null);
  const rows = [
    ["loss per position", short(last(specimen.loss))],
    ["agreement with the one before", fixed(last(specimen.agreement))],
    ["finest spots", specimen.resolution === null ? "–" : `${short(specimen.resolution)} Å`],
    ["field visited", `${Math.round(100 * specimen.coverage)} %`],
  ];
  for (const [name, values] of Object.entries(specimen.scores)) rows.push([NAMES[name] || name, fixed(last(values))]);
  list("quality", rows);
}

function list(id, rows) {
  byId(id).replaceChildren(...rows.flatMap(([name, value, over]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    text.className = over ? "over" : "";
    return [term, text];
  }));
}

function agreement() {
  const lines = Object.entries({ agreement: specimen.agreement, ...specimen.scores });
  byId("scored").hidden = lines.length < 2;
  const known = lines.flatMap(([, values]) => values.filter((v) => v !== null));
  const low = Math.min(0, ...known), at = frame(byId("agreement"), low, 1, (v) => v.toFixed(1));
  lines.forEach(([, values], i) => {
    const points = values.map((v, k) => [k, v]).filter(([, v]) => v !== null).map(([k, v]) => at(k, v));
    const path = points.map((p) => p.join(",")).join(" ");
    add(byId("agreement"), "polyline", { points: path, fill: "none", stroke: LINES[i], "stroke-width": 2 });
    for (const [x, y] of points) add(byId("agreement"), "circle", { cx: x, cy: y, r: 3, fill: LINES[i] });
  });
  byId("agreement-legend").replaceChildren(...lines.flatMap(([name], i) => {
    const box = document.createElement("i");
    box.className = "box";
    box.style.background = LINES[i];
    return [box, NAMES[name] || name];
  }));
}

function latency() {
  const totals = facts.seconds.map(sum), highest = totals.length ? Math.max(1e-3, ...totals) : 1;
  const at = frame(byId("latency"), 0, highest, (v) => `${short(v)} s`), wide = Math.min(40, 0.7 * (540 / facts.subsequences));
  facts.seconds.forEach((parts, k) => {
    let below = 0;
    parts.forEach((part, i) => {
      const [x, top] = at(k, below + part), [, bottom] = at(k, below);
      const box = add(byId("latency"), "rect", { x: x - wide / 2, y: top, width: wide, height: Math.max(0, bottom - top) });
      box.style.fill = ["#cc79a7", "#e69f00", "#0072b2"][i];
      add(box, "title", {}).textContent = `${TASKS[i]} ${short(part)} s`;
      below += part;
    });
  });
  const last = facts.seconds[facts.seconds.length - 1];
  byId("seconds").textContent = last ? `(last: ${last.map((v) => short(v)).join(", ")} s)` : "";
}

function frame(svg, low, high, text) {
  svg.replaceChildren();
  const count = facts.subsequences, at = (k, v) => [50 + (540 * (k + 0.5)) / count, 140 - (125 * (v - low)) / (high - low)];
  for (const share of [0, 0.5, 1]) {
    const value = low + share * (high - low), [, y] = at(0, value);
    add(svg, "line", { x1: 50, x2: 590, y1: y, y2: y, stroke: "#dde3ea" });
    add(svg, "text", { x: 44, y: y + 4, "text-anchor": "end" }).textContent = text(value);
  }
  const step = Math.ceil(count / 12);
  for (let k = 0; k < count; k += step) add(svg, "text", { x: at(k, 0)[0], y: 160, "text-anchor": "middle" }).textContent = k + 1;
  return at;
}

function add(parent, name, values) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  return parent.appendChild(made);
}

function log() {
  byId("log").replaceChildren(...facts.log.slice().reverse().map((line) => {
    const item = document.createElement("li"), time = document.createElement("time"), text = document.createElement("span");
    time.textContent = line.at ? new Date(line.at).toLocaleTimeString() : "";
    time.title = line.at;
    text.textContent = line.text;
    item.append(time, text);
    return item;
  }));
}

function sum(values) { return values.reduce((a, b) => a + b, 0); }
function fixed(value) { return value === null ? "–" : value.toFixed(3); }
function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e5 || (size && size < 1e-3)) {
    const [digits, power] = value.toExponential(2).split("e");
    return `${digits} × 10${[...String(Number(power))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;
  }
  return size >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
function span(seconds) { return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`; }

async function order(word) {
  const judged = word === "approve" || word === "reject";
  const body = judged ? { word, number: facts.proposal.number, attempt: facts.proposal.attempt } : { word };
  const answer = await fetch("api/orders", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  }).catch(() => null);
  byId("answer").textContent = !answer ? "The monitor does not answer." : answer.ok ? `${word}: told to the scan` : await answer.text();
}

for (const button of document.querySelectorAll("[data-word]")) button.addEventListener("click", () => order(button.dataset.word));
byId("asks").addEventListener("change", (event) => order(event.target.checked ? "ask" : "trust"));
byId("dots").addEventListener("change", () => specimen && show());
byId("specimen").addEventListener("change", update);
byId("shown").addEventListener("input", () => { following = byId("shown").value === byId("shown").max; if (specimen) show(); });
byId("live").addEventListener("click", () => { following = true; byId("shown").value = byId("shown").max; if (specimen) show(); });
