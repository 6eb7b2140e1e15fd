// Live fragments: HTML that a backend renders and publishes changes the page; docs/live.md says how.
import { Socket } from "./phoenix.mjs";

const ACTIONS = {
  replace: (target, fresh) =>
    fresh.children.length === 1 ? put(target, fresh.firstElementChild) : target.replaceWith(fresh),
  update: (target, fresh) => morphChildren(target, fresh),
  append: (target, fresh) => target.append(...unknown(target, fresh)),
  prepend: (target, fresh) => target.prepend(...unknown(target, fresh)),
  remove: (target) => target.remove(),
};
const GET_MS = 10_000; // how long one may take
const RETRY_MS = [1_000, 2_000, 5_000, 10_000, 30_000]; // after one that failed
const FAILURES = 5; // attempts to connect after which another token is asked for

const meta = (name) => document.querySelector(`meta[name=live-${name}]`);
const said = meta("socket")?.content;
const endpoint = said ? new URL(said, document.baseURI) : new URL("socket", import.meta.url);
const socket = new Socket(endpoint.href.replace(/^http/, "ws"), {
  authToken: meta("token") && (() => meta("token").content),
});
const topics = new Map(); // by name
let failures = 0;

class Topic {
  elements = new Set();
  loading = 0; // fragments
  waiting = []; // messages that came meanwhile

  constructor(name, position) {
    this.position = position; // where the page stands; null where nobody said it
    this.resumes = position !== null;
    this.channel = socket.channel(name, () => ({ resume: this.position }));
    this.channel.onMessage = (_, payload, ref) => {
      if (typeof ref === "string" && ref[0] === "@") this.position = ref;
      return payload;
    };
    this.channel.on("live", (message) => (this.loading ? this.waiting.push(message) : apply(message)));
    this.channel.join().receive("ok", ({ recovered, position }) => {
      this.position = position;
      for (const element of recovered ? [] : this.elements)
        if (this.resumes || element.dataset.liveSrc) this.load(element);
      this.resumes = true;
    }).receive("error", ({ reason }) => {
      if (reason === "invalid resume") this.position = null;
      console.warn(`live: ${name} cannot be joined:`, reason);
    });
  }

  /** Fetches what an element shows anew, and then applies what came meanwhile. */
  async load(element, tries = 0) {
    const { liveSrc } = element.dataset;
    this.loading += 1;
    try {
      const page = await get(liveSrc ?? location.href);
      const fresh = page.getElementById(element.id) ?? (liveSrc && page);
      if (!fresh) throw new Error("it has no data-live-src, and its page no element of its id");
      change(() => morphChildren(element, fresh));
    } catch (problem) {
      console.warn("live: not up to date:", element, problem);
      const again = () => this.elements.has(element) && this.load(element, tries + 1);
      setTimeout(again, (RETRY_MS[tries] ?? RETRY_MS.at(-1)) * (0.5 + Math.random() / 2));
    }
    this.loading -= 1;
    if (!this.loading) this.waiting.splice(0).forEach(apply);
  }
}

/** Joins the topics of elements that came, and leaves those whose elements are gone. */
function scan() {
  const found = new Set(document.querySelectorAll("[data-live]"));
  for (const [name, { elements }] of topics)
    for (const element of elements)
      if (!found.has(element) || element.dataset.live !== name) elements.delete(element);
  for (const element of found) {
    const { live: name, livePosition = null, liveSrc } = element.dataset;
    if (!topics.has(name)) topics.set(name, new Topic(name, livePosition));
    const topic = topics.get(name);
    if (topic.elements.has(element)) continue;
    topic.elements.add(element);
    if (livePosition !== topic.position && liveSrc) topic.load(element); // it missed what the others have
  }
  for (const [name, { elements, channel }] of topics)
    if (!elements.size && topics.delete(name)) channel.leave();
}

function apply(message) {
  try {
    const { target, action, html = "" } = message;
    if (!Object.hasOwn(ACTIONS, action) || typeof target !== "string" || typeof html !== "string")
      throw new TypeError("target, action or html is not as it should be");
    const one = document.getElementById(target);
    for (const each of one ? [one] : document.querySelectorAll(target))
      change(() => ACTIONS[action](each, parse(html)));
  } catch (problem) {
    console.warn("live: message ignored:", message, problem);
  }
}

/** Nodes of HTML; scripts are left out. */
function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  template.content.querySelectorAll("script").forEach((script) => script.remove());
  return template.content;
}

/** Changes the page; focus and selection stay. */
function change(how) {
  const active = document.activeElement ?? document.body;
  const { selectionStart, selectionEnd, selectionDirection } = active;
  how();
  const now = active.isConnected ? active : active.id && document.getElementById(active.id);
  if (!now || now === document.activeElement) return;
  now.focus({ preventScroll: true });
  if (typeof selectionStart === "number") now.setSelectionRange(selectionStart, selectionEnd, selectionDirection);
}

/** What of new content a target lacks. What it has already, by its id, is brought up to date in its place. */
function unknown(target, fresh) {
  return [...fresh.childNodes].filter((node) => {
    const known = node.id && [...target.children].find((child) => child.id === node.id);
    if (known) put(known, node);
    return !known;
  });
}

const same = (a, b) => a.nodeName === b.nodeName && (a.id ?? "") === (b.id ?? "");
const put = (old, fresh) => (same(old, fresh) ? morph(old, fresh) : old.replaceWith(fresh));

/** Makes a node like another of its kind. What both have inside stays, with its scroll, focus and input. */
function morph(node, like) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== like.data) node.data = like.data;
    return;
  }
  for (const { name } of [...node.attributes])
    if (!like.hasAttribute(name) && name !== "open") node.removeAttribute(name); // who opened it closes it
  for (const { name, value } of like.attributes)
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  morphChildren(node, like);
}

function morphChildren(parent, like) {
  const ids = new Set(Array.from(like.children, ({ id }) => id));
  for (const child of [...parent.children]) if (child.id && !ids.has(child.id)) child.remove();
  let at = parent.firstChild;
  for (const fresh of [...like.childNodes]) {
    let known = at;
    while (known && !same(known, fresh)) known = known.nextSibling;
    if (known === at) at = at?.nextSibling ?? null;
    else if (known && parent.moveBefore) parent.moveBefore(known, at);
    else if (known) parent.insertBefore(known, at);
    if (known) morph(known, fresh);
    else parent.insertBefore(fresh, at);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/** The HTML at an address. */
async function get(url) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(GET_MS) });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
  return parse(await answer.text());
}

/** Asks for another token, and tells the gateway: a connection outlives its first one. */
async function renew() {
  const old = meta("token");
  try {
    const page = await get(old.dataset.src ?? location.href);
    const token = page.querySelector("meta[name=live-token]")?.content;
    old.content = token ?? page.textContent.trim();
    const payload = { access_token: old.content };
    if (socket.isConnected()) socket.push({ topic: "phoenix", event: "access_token", payload, ref: socket.makeRef() });
    planRenewal();
  } catch (problem) {
    console.warn("live: no new token:", problem);
    setTimeout(renew, RETRY_MS.at(-1));
  }
}

/** Renews the token when four fifths of its life are over: by its own measure, as the clock here may be wrong. */
function planRenewal() {
  const { iat, exp } = JSON.parse(atob(meta("token").content.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  setTimeout(renew, Math.min((exp - iat) * 800, 2 ** 31 - 1));
}

const state = (now) => (document.documentElement.dataset.liveState = now); // for the page's CSS
socket.onOpen(() => state("connected", (failures = 0)));
socket.onClose(() => state("connecting"));
socket.onError(() => ++failures % FAILURES || !meta("token") || renew()); // refused, or not reached
state("connecting");
if (meta("token")?.content) planRenewal();
else if (meta("token")) await renew();
socket.connect();
new MutationObserver(scan).observe(document, { childList: true, subtree: true, attributeFilter: ["data-live"] });
scan();
