// A page as any frontend of such a service: REST to the backend, phoenix.js to the gateway.
import { Presence, Socket } from "./phoenix.mjs";

const PEOPLE = {
  ada: { name: "Ada", hue: 250, about: "in #general and #random" },
  bob: { name: "Bob", hue: 160, about: "in #general and #random" },
  eve: { name: "Eve", hue: 20, about: "in #random, but no member of #general" },
};
const ROOMS = ["general", "random"];

const TRANSIENT = /unavailable|timeout|rate limited/; // reasons for which one tries again

const $ = (selector) => document.querySelector(selector);
const [user, device = "laptop"] = location.hash.slice(1).split("/");
let token; // of both the REST calls and the socket
let socket;
let room; // what is shown: its name, its channel, the posts by their ids, and where in the history it stands

// story.html has three of these pages in frames, is told what they send and hear, and has them speak.
const framed = parent !== window;
const tell = (news) => framed && parent.postMessage(news, location.origin);
document.documentElement.classList.toggle("framed", framed);
if (framed) addEventListener("message", ({ source, data }) => source === parent && send(data.say));

addEventListener("hashchange", () => location.reload());
addEventListener("resize", toEnd);
if (user in PEOPLE) await start();
else choose();

/** Asks a backend; throws its reason. */
async function rest(method, path, body, type = "application/json") {
  const headers = body ? { "Content-Type": type } : {};
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method, body, headers });
  const content = answer.headers.get("Content-Type")?.startsWith("application/json");
  const json = content ? await answer.json() : null;
  if (!answer.ok) throw new Error(json?.reason ?? `answered ${answer.status}`);
  return json;
}

function choose() {
  for (const [id, { name, about }] of Object.entries(PEOPLE)) {
    const links = ["laptop", "phone"].map((kind) =>
      element("a", { href: `#${id}/${kind}`, textContent: kind, ariaLabel: `${name}, ${kind}` }));
    const card = element("div", { className: "person" }, avatar(id),
      element("b", { textContent: name }), element("small", { textContent: about }),
      element("nav", {}, ...links));
    $(".people").append(card);
  }
  $("#login").hidden = false;
}

async function start() {
  const login = await rest("POST", "/login", JSON.stringify({ user, device }));
  const { name } = PEOPLE[user];
  const second = device === "laptop" ? "phone" : "laptop";
  document.title = `${name}, ${device}`;
  $(".me .avatar").replaceWith(avatar(user));
  $(".me b").textContent = `${name}, ${device}`;
  $("#second").textContent = `Open the ${second}`;
  $("#second").href = `#${user}/${second}`;
  for (const name of ROOMS) {
    const button = element("button", { textContent: `# ${name}`, onclick: () => enter(name) });
    $("#rooms").append(element("li", {}, button));
  }
  $("form").onsubmit = say;
  $("form").image.onchange = upload;
  $("#wall button").onclick = () => enter(room.name);
  $("#app").hidden = false;

  token = login.token;
  socket = new Socket(login.socket, { authToken: token });
  socket.onOpen(() => connection("connected"));
  socket.onClose(() => connection("reconnecting"));
  socket.connect();
  enter(ROOMS[0]);
}

function connection(state) {
  tell({ state });
  $(".state").textContent = state;
  $(".state").dataset.state = state;
}

/** Leaves the room that is shown, and joins another or the same. */
function enter(name) {
  room?.channel.leave();
  const mine = (room = { name, posts: new Map(), unanswered: new Map(), last: null });
  const channel = (mine.channel = socket.channel(`room:${name}`, () => ({ resume: mine.last })));
  const presence = new Presence(channel);
  const shown = () => room === mine;
  channel.onMessage = (_, payload, ref) => {
    if (typeof ref === "string" && ref[0] === "@") mine.last = ref; // see docs/resume.md
    return payload;
  };

  $("main h1").textContent = `# ${name}`;
  $("form").text.placeholder = `Message #${name}`;
  $("#posts").replaceChildren();
  for (const button of document.querySelectorAll("#rooms button"))
    button.ariaCurrent = button.textContent === `# ${name}` ? "page" : null;
  admitted(false);
  wall(null);
  people([]);

  for (const event of ["message", "image"]) channel.on(event, (post) => {
    tell({ heard: post.id });
    if (shown()) add(event, post);
  });
  presence.onSync(() => shown() && people(presence.list((id, { metas }) => ({ id, metas }))));
  channel.onClose(() => {
    if (shown() && !mine.refused) wall("You were removed", `from #${name}, on all your devices.`);
  });
  channel.join()
    .receive("ok", async ({ position, replica }) => {
      mine.last = position; // what was missed follows; messages have positions of their own
      tell({ state: "connected", replica });
      mine.unanswered.forEach((post) => deliver(mine, post));
      // the database has the past, and also what a backend kept and could tell no gateway
      const past = (await tried(rest("GET", `/rooms/${name}/messages`))) ?? [];
      if (!shown()) return;
      past.forEach(({ event, payload }) => add(event, payload));
      admitted(true);
    })
    .receive("error", ({ reason }) => {
      if (TRANSIENT.test(reason)) return; // phoenix.js tries again
      mine.refused = true;
      if (!shown()) return;
      channel.leave(); // or phoenix.js would try for ever
      wall(`You cannot enter #${name}`, "The backend says:", reason);
    });
}

function admitted(is) {
  $("form button").disabled = !is;
  $("form").text.disabled = !is;
  $("form").image.disabled = !is;
}

/** Shows a text in place of the messages; null takes it away. */
function wall(title, text = "", reason = "") {
  $("#wall").hidden = title === null;
  $("#posts").hidden = title !== null;
  $("#wall h3").textContent = title;
  $("#wall p").replaceChildren(`${text} `, element("code", { textContent: reason }));
  if (title !== null) {
    admitted(false);
    people([]);
  }
}

function add(event, { id, user: author, at, text, url }) {
  if (room.posts.has(id)) return;
  const time = element("time", { textContent: new Date(at * 1000).toTimeString().slice(0, 5) });
  const content = event === "image"
    ? element("img", { src: url, alt: `Image by ${PEOPLE[author].name}`, onload: toEnd })
    : element("p", { textContent: text });
  const head = element("div", {}, element("b", { textContent: PEOPLE[author].name }), time);
  const item = element("li", {}, avatar(author), element("div", {}, head, content));
  room.posts.set(id, { at, item });
  const later = [...room.posts.values()].filter((post) => post.at > at).sort((a, b) => a.at - b.at);
  $("#posts").insertBefore(item, later[0]?.item ?? null);
  if (!later.length) toEnd();
}

function toEnd() {
  $("#posts").scrollTop = $("#posts").scrollHeight;
}

function people(present) {
  $("#members").replaceChildren(...present.map(({ id, metas }) => {
    const name = metas[0].name ?? id; // the backend said it when it let her in
    const devices = [...new Set(metas.map((meta) => meta.device_type))].join(", ");
    const remove = element("button", { textContent: "Remove", ariaLabel: `Remove ${name}`,
      onclick: () => change("DELETE", id) });
    return element("li", {}, element("span", { className: "dot" }), name,
      element("small", { textContent: devices }), ...(id === user ? [] : [remove]));
  }));
  const here = new Set(present.map(({ id }) => id));
  const absent = here.size ? Object.keys(PEOPLE).filter((id) => !here.has(id)) : [];
  $("#others").replaceChildren(...absent.map((id) => {
    const { name } = PEOPLE[id];
    const button = element("button", { textContent: "Add", ariaLabel: `Add ${name}`,
      onclick: () => change("PUT", id) });
    return element("li", {}, name, button);
  }));
  const count = here.size === 1 ? "1 person" : `${here.size} people`;
  $("main > header span").textContent = here.size ? `${count} here` : "";
}

function change(method, id) {
  tried(rest(method, `/rooms/${room.name}/members/${id}`));
}

function say(event) {
  event.preventDefault();
  const input = $("form").text;
  if (input.value.trim() !== "") send(input.value);
  input.value = "";
}

function send(text) {
  const post = { id: crypto.randomUUID(), text };
  room.unanswered.set(post.id, post);
  tell({ sent: post.id });
  deliver(room, post);
}

/** Sends a post, again until it is answered: by its id it is kept once, however often it comes. */
function deliver(mine, post) {
  if (mine.channel.state !== "joined") return; // the next join does it
  const again = () => mine.unanswered.has(post.id) && deliver(mine, post);
  mine.channel.push("message", post)
    .receive("ok", () => mine.unanswered.delete(post.id))
    .receive("timeout", again)
    .receive("error", ({ reason }) => {
      if (TRANSIENT.test(reason)) return setTimeout(again, 1000);
      mine.unanswered.delete(post.id);
      tried(Promise.reject(new Error(reason)));
    });
}

function upload({ target }) {
  const [file] = target.files;
  target.value = "";
  if (file) tried(rest("POST", `/rooms/${room.name}/images`, file, file.type));
}

/** The result of some work; shows why there is none. */
async function tried(work) {
  try {
    const result = await work;
    $("#problem").textContent = "";
    return result;
  } catch ({ message }) {
    $("#problem").textContent = message;
  }
}

function avatar(id) {
  const circle = element("span", { className: "avatar", textContent: PEOPLE[id].name[0] });
  circle.style.setProperty("--hue", PEOPLE[id].hue);
  return circle;
}

function element(name, properties, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
}
