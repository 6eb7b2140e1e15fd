// Three devices in frames, what they send and hear, and the processes behind them.
const WORDS = ["Did you see that?", "Still here.", "And now?", "Nothing lost.", "Go on.", "Hear, hear!", "Once more."];
const TALK_MS = 200;
const POLL_MS = 500;
const STATES = { starting: "starting", down: "gone, starts again", stopped: "stopped" };

const $ = (selector, within = document) => within.querySelector(selector);
const sent = new Set(); // ids of all messages that are known
const order = new Map(); // those that were heard: where in the room's one order they stand

class Device {
  constructor(pane) {
    this.pane = pane;
    pane.append($("template").content.cloneNode(true));
    $("header", pane).prepend($("h2", pane));
    this.frame = $("iframe", pane);
    this.frame.title = $("h2", pane).textContent;
    this.frame.src = `rooms#${pane.dataset.login}`;
    this.frame.onload = () => { // counting begins anew with the page
      [this.heard, this.repeated, this.first, this.last] = [new Set(), 0, Infinity, -Infinity];
    };
    this.frame.onload();
  }

  say(text) {
    this.frame.contentWindow.postMessage({ say: text }, location.origin);
  }

  told({ state, replica = "", sent: posted, heard }) {
    if (state) {
      this.state = state;
      this.replica = replica;
    }
    if (posted) sent.add(posted);
    if (heard) this.hear(heard);
  }

  hear(id) {
    sent.add(id);
    if (!order.has(id)) order.set(id, order.size);
    if (this.heard.has(id)) this.repeated++;
    this.heard.add(id);
    this.first = Math.min(this.first, order.get(id));
    this.last = Math.max(this.last, order.get(id));
  }

  /** What others heard between the first and the last that it heard, and it did not. */
  get missed() {
    return this.heard.size ? this.last - this.first + 1 - this.heard.size : 0;
  }

  get counts() {
    return { seen: this.heard.size, missed: this.missed, repeated: this.repeated };
  }

  show() {
    const label = $(".state", this.pane);
    label.textContent = this.replica ? `on gateway ${this.replica}` : this.state;
    label.dataset.state = this.replica ? "connected" : this.state;
    count(this.pane, this.counts);
  }
}

const devices = [...document.querySelectorAll(".device")].map((pane) => new Device(pane));

addEventListener("message", ({ source, origin, data }) => {
  const device = devices.find(({ frame }) => frame.contentWindow === source);
  if (origin !== location.origin || !device) return;
  device.told(data);
  device.show();
  const [missed, repeated] = ["missed", "repeated"].map((name) => devices.reduce((sum, { counts }) => sum + counts[name], 0));
  count($("#total"), { sent: sent.size, missed, repeated });
  if (devices.every(({ replica }) => replica)) $("#talk").disabled = false;
});

function count(within, counts) {
  for (const [name, number] of Object.entries(counts)) {
    const place = $(`[data-count=${name}]`, within);
    place.textContent = number;
    place.classList.toggle("amiss", number !== 0 && (name === "missed" || name === "repeated"));
  }
}

let talking;
let said = 0;
$("#talk").onclick = ({ target }) => {
  if (talking) talking = clearInterval(talking);
  else talking = setInterval(() => devices[said % devices.length].say(`${++said}. ${WORDS[said % WORDS.length]}`), TALK_MS);
  target.textContent = talking ? "Stop messages" : "Start messages";
  target.ariaPressed = Boolean(talking);
};

for (const part of document.querySelectorAll("[data-part]")) {
  const button = $("button", part);
  button.onclick = async () => {
    button.disabled = true; // until it is seen what became of it
    await fetch(`parts/${part.dataset.part}/${button.dataset.action}`, { method: "POST" }).catch(() => {});
  };
}

function show(name, state) {
  const part = $(`[data-part=${name}]`);
  const title = $(".state", part);
  const button = $("button", part);
  const note = $("small", part);
  note.dataset.usual ??= note.textContent;
  const here = devices.filter(({ replica }) => name === `gateway-${replica}`);
  title.dataset.state = state;
  note.textContent = STATES[state] || here.map(({ pane }) => pane.dataset.device).join(", ") || note.dataset.usual;
  if (name.startsWith("backend")) {
    button.dataset.action = state === "stopped" ? "start" : "stop";
    button.textContent = state === "stopped" ? "Start" : "Stop";
  }
  button.ariaLabel = `${button.textContent} ${title.textContent}`;
  button.disabled = state === "down" || state === "starting";
}

async function poll() {
  try {
    const states = await (await fetch("parts")).json();
    for (const [name, state] of Object.entries(states)) show(name, state);
    $("#ended").hidden = true;
  } catch {
    $("#ended").hidden = false;
  }
  setTimeout(poll, POLL_MS);
}
poll();
