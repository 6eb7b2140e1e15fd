// Live fragments: HTML that a backend renders and publishes changes the page; docs/live.md says how.
import { Socket } from "./phoenix.mjs";

const ACTIONS = {
  replace: (target, fresh) =>
    fresh.children.length === 1 ? put(target, fresh.firstElementChild) : target.replaceWith(fresh),
  update: (target, fresh) => morphChildren(target, fresh),
  append: (target, fresh) => target.append(...lacking(target, fresh)),
  prepend: (target, fresh) => target.prepend(...lacking(target, fresh)),
  remove: (target) => target.remove(),
};
const GET_MS = 10_000; // how long one may take
const RETRY_MS = [1_000, 2_000, 5_000, 10_000, 30_000]; // after one that failed
const FAILURES = 5; // to connect, after which the token is suspected
const LONGEST_MS = 2 ** 31 - 1; // of a timer

const meta = (name) => document.querySelector(`meta[name=live-${name}]`);
const said = meta("socket")?.content;
const endpoint = said ? new URL(said, document.baseURI) : new URL("socket", import.meta.url);
const authToken = meta("token") ? () => meta("token").content : undefined;
const socket = new Socket(endpoint.href.replace(/^http/, "ws"), { authToken });
const topics = new Map(); // by name
let failures = 0;
let renewal; // a timer

/** A channel, and the elements that show what comes by it. */
class Topic {
  elements = new Set();
  loading = 0; // elements
  waiting = []; // messages that came meanwhile

  constructor(name, position) {
    this.position = position; // where the page stands; null where it does not say
    this.known = position !== null; // whether the page stands anywhere
    this.channel = socket.channel(name, () => ({ resume: this.position }));
    this.channel.onMessage = (_, payload, ref) => {
      if (typeof ref === "string" && ref[0] === "@") this.position = ref;
      return payload;
    };
    this.channel.on("live", (message) => (this.loading ? this.waiting.push(message) : apply(message)));
    this.channel.join().receive("ok", ({ recovered, position }) => {
      this.position = position;
      for (const element of recovered ? [] : this.elements)
        if (this.known || element.dataset.liveSrc) this.load(element);
      this.known = true;
    }).receive("error", ({ reason }) => {
      if (reason === "invalid resume") this.position = null;
      console.warn(`live: ${name} cannot be joined:`, reason);
    });
  }

  /** Fetches an element anew, and applies what came meanwhile. */
  async load(element, tries = 0) {
    this.loading += 1;
    try {
      const { liveSrc } = element.dataset;
      const page = await get(liveSrc ?? location.href);
      const fresh = page.getElementById(element.id);
      if (fresh) change(() => morph(element, fresh));
      else if (liveSrc) change(() => morphChildren(element, page));
      else console.warn("live: not up to date, for want of a data-live-src or an id:", element);
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
    if (livePosition !== topic.position && liveSrc) topic.load(element); // rendered before or after the others
  }
  for (const [name, { elements, channel }] of topics)
    if (!elements.size && topics.delete(name)) channel.leave();
}

function apply(message) {
  try {
    const { target, action, html = "" } = message;
    if (!Object.hasOwn(ACTIONS, action) || typeof target !== "string" || typeof html !== "string")
      throw new TypeError("target, action or html is not what it should be");
    const one = document.getElementById(target);
    for (const each of one ? [one] : document.querySelectorAll(target))
      change(() => ACTIONS[action](each, parse(html)));
  } catch (problem) {
    console.warn("live: message ignored:", message, problem);
  }
}

/** Nodes of HTML; its scripts are left out. */
function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  template.content.querySelectorAll("script").forEach((script) => script.remove());
  return template.content;
}

/** Changes the page; focus and selection stay. */
function change(how) {
  const active = document.activeElement ?? document.body;
  const { selectionStart: start, selectionEnd: end, selectionDirection: direction } = active;
  how();
  const now = active.isConnected ? active : active.id && document.getElementById(active.id);
  if (!now || now === document.activeElement) return;
  now.focus({ preventScroll: true });
  if (typeof start === "number") now.setSelectionRange?.(start, end, direction);
}

/** What a target lacks of new content; what it has already, by its id, is brought up to date in its place. */
function lacking(target, fresh) {
  return [...fresh.childNodes].filter((node) => {
    const old = node.id && [...target.children].find(({ id }) => id === node.id);
    if (old) put(old, node);
    return !old;
  });
}

const same = (a, b) => a.nodeName === b.nodeName && (a.id ?? "") === (b.id ?? "");
const put = (old, fresh) => (same(old, fresh) ? morph(old, fresh) : old.replaceWith(fresh));

/** Makes a node like another; what both have inside stays, with its scroll, its focus and what was typed. */
function morph(node, like) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== like.data) node.data = like.data;
    return;
  }
  for (const { name } of [...node.attributes])
    if (!like.hasAttribute(name) && name !== "open") node.removeAttribute(name); // the reader opened it
  for (const { name, value } of like.attributes)
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  morphChildren(node, like);
}

function morphChildren(parent, like) {
  const ids = new Set(Array.from(like.children, ({ id }) => id));
  for (const child of [...parent.children]) if (child.id && !ids.has(child.id)) child.remove();
  let at = parent.firstChild;
  for (const fresh of [...like.childNodes]) {
    let old = at;
    while (old && !same(old, fresh)) old = old.nextSibling;
    if (!old) parent.insertBefore(fresh, at);
    else if (old === at) at = at.nextSibling;
    else if (parent.moveBefore) parent.moveBefore(old, at);
    else parent.insertBefore(old, at);
    if (old) morph(old, fresh);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** The HTML at an address. */
async function get(url) {
  const signal = AbortSignal.timeout(GET_MS);
  const answer = await fetch(url, { cache: "no-cache", redirect: "error", signal }); // to a login, say
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
  return parse(await answer.text());
}

/** Takes a token into use, or asks for one; and asks for the next when half of its life is over. */
async function renew(token) {
  clearTimeout(renewal);
  try {
    const { content, dataset } = meta("token");
    const page = token ? null : await get(dataset.src ?? location.href);
    const next = token || (page.querySelector("meta[name=live-token]")?.content ?? page.textContent.trim());
    const { iat, exp } = JSON.parse(atob(next.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    meta("token").content = next;
    const refresh = { topic: "phoenix", event: "access_token", payload: { access_token: next } };
    if (next !== content && socket.isConnected()) socket.push({ ...refresh, ref: socket.makeRef() });
    renewal = setTimeout(renew, Math.min((exp - iat) * 500, LONGEST_MS)); // whatever the clock here says
  } catch (problem) {
    console.warn("live: no token:", problem);
    renewal = setTimeout(renew, RETRY_MS.at(-1));
  }
}

const show = (state) => (document.documentElement.dataset.liveState = state); // for the page's CSS
socket.onOpen(() => show("connected", (failures = 0)));
socket.onClose(() => show("connecting"));
socket.onError(() => ++failures % FAILURES || (authToken && renew()));
show("connecting");
new MutationObserver(scan).observe(document, { childList: true, subtree: true, attributeFilter: ["data-live"] });
scan();
if (authToken) await renew(authToken());
socket.connect();
