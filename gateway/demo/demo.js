// A few lines of Phoenix Channels, enough for this page. Applications use the phoenix package.
"use strict";

const TOPIC = "room:demo";
const HEARTBEAT_MS = 30_000;
const RETRY_MS = [100, 500, 1000, 2000, 5000];
const user = new URLSearchParams(location.search).get("user") ?? "ada";

class Device {
  constructor(pane) {
    this.name = pane.dataset.device;
    this.state = pane.querySelector(".state");
    this.list = pane.querySelector(".messages");
    this.form = pane.querySelector("form");
    this.button = pane.querySelector("form button");
    this.here = pane.querySelector(".here");
    this.link = pane.querySelector("header button");
    this.attempts = 0;
    this.position = { last: 100 }; // for now, the newest messages; see docs/resume.md
    this.present = new Map(); // users and devices, by the refs of their presence
    this.link.addEventListener("click", () => this.offline ? this.connect() : this.disconnect());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.connect();
  }

  disconnect() {
    this.offline = true;
    this.socket.close();
  }

  connect() {
    this.offline = false;
    const query = new URLSearchParams({
      vsn: "2.0.0", user_id: user, device_id: this.name, device_type: this.name,
    });
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.ref = 0;
    this.socket = new WebSocket(`${scheme}://${location.host}/socket/websocket?${query}`);
    this.socket.onopen = () => {
      this.attempts = 0;
      this.joinRef = this.push(TOPIC, "phx_join", { resume: this.position });
      this.heartbeat = setInterval(() => this.push("phoenix", "heartbeat", {}), HEARTBEAT_MS);
    };
    this.socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    this.socket.onclose = () => {
      clearInterval(this.heartbeat);
      this.show(this.offline ? "offline" : "reconnecting");
      this.present.clear();
      this.showPresent();
      if (!this.offline) setTimeout(() => this.connect(), RETRY_MS[Math.min(this.attempts++, RETRY_MS.length - 1)]);
    };
  }

  push(topic, event, payload) {
    const ref = String(++this.ref);
    const joinRef = event === "phx_join" ? ref : topic === TOPIC ? this.joinRef : null;
    this.socket.send(JSON.stringify([joinRef, ref, topic, event, payload]));
    return ref;
  }

  receive([, ref, topic, event, payload]) {
    if (topic !== TOPIC) return;
    if (event === "phx_reply" && ref === this.joinRef) {
      if (payload.status === "ok") this.position = payload.response.position;
      this.show(payload.status === "ok" ? "joined" : payload.response.reason);
    } else if (event === "message") {
      this.add(payload);
    } else if (event === "presence_state" || event === "presence_diff") {
      const { joins, leaves } = event === "presence_diff" ? payload : { joins: payload, leaves: {} };
      for (const [id, { metas }] of Object.entries(joins))
        for (const meta of metas) this.present.set(meta.phx_ref, `${id} (${meta.device_type})`);
      for (const { metas } of Object.values(leaves))
        for (const meta of metas) this.present.delete(meta.phx_ref);
      this.showPresent();
    }
    if (typeof ref === "string" && ref[0] === "@") this.position = ref;
  }

  showPresent() {
    const names = [...new Set(this.present.values())].sort();
    this.here.textContent = names.length ? `here: ${names.join(", ")}` : "";
  }

  send() {
    const input = this.form.elements.body;
    if (input.value.trim() === "") return;
    this.push(TOPIC, "message", { body: input.value, from: this.name });
    input.value = "";
  }

  add({ body, from }) {
    const item = document.createElement("li");
    const text = document.createElement("span");
    const author = document.createElement("small");
    text.textContent = body;
    author.textContent = from ?? "backend";
    if (from === this.name) item.className = "mine";
    item.append(text, author);
    this.list.append(item);
    this.list.scrollTop = this.list.scrollHeight;
  }

  show(state) {
    this.state.textContent = state;
    this.state.dataset.state = state;
    this.button.disabled = state !== "joined";
    this.link.textContent = state === "offline" ? "Come back" : "Go offline";
  }
}

document.querySelectorAll(".device").forEach((pane) => new Device(pane));
