// Plays one scenario with one client package against a gateway and reports what it saw, a JSON
// object a line. The packages are used as published: nothing of them is replaced or patched.
//
//   node driver.mjs PACKAGE SCENARIO URL [OPTIONS]
//
// OPTIONS is JSON: params, authToken and heartbeatIntervalMs go to the Socket; "topic" is what the
// scenario joins; "v1": true makes a phoenix package speak version 1; "times" is how often its text stands in
// what it says; "withinMs" is how long it may take.
// Exit status: 0 the scenario came to its end, 1 something went wrong, 3 it did not end in time.

import { createInterface } from "node:readline";

import WebSocket from "ws";

import { resume } from "../../../clients/js/resume.js";

const [name, scenario, url, json = "{}"] = process.argv.slice(2);
const { topic, v1 = false, times = 1, withinMs = 30_000, ...options } = JSON.parse(json);

const module = await import(name);
const { Socket, Presence } = module.Socket ? module : module.default;

function report(saw, details = {}) {
  process.stdout.write(JSON.stringify({ saw, ...details }) + "\n");
}

// The packages kept the option `vsn` and gave up the old serializer with it; this is that one.
const VERSION_1 = {
  vsn: "1.0.0",
  encode: (message, callback) => callback(JSON.stringify(message)),
  decode: (text, callback) => callback(JSON.parse(text)),
};

function connect() {
  const socket = new Socket(url, { transport: WebSocket, ...(v1 ? VERSION_1 : {}), ...options });
  socket.connect();
  return socket;
}

/** The raw messages a socket gets, from now on. */
function messagesOf(socket) {
  const messages = [];
  socket.onMessage((message) => messages.push(message));
  return messages;
}

function answerTo(push) {
  return new Promise((resolve, reject) => {
    push.receive("ok", resolve);
    push.receive("error", (answer) => reject(Object.assign(new Error("refused"), { answer })));
    push.receive("timeout", () => reject(new Error("no answer in time")));
  });
}

function next(channel, event) {
  return new Promise((resolve) => channel.on(event, resolve));
}

async function join(socket, name = topic) {
  const channel = socket.channel(name, {});
  const response = await answerTo(channel.join());
  return { channel, response };
}

/** Reports numbers that come, and does what standard input says, until it ends. */
async function comeAndGo(socket, channel, more = {}) {
  channel.on("n", ({ n }) => report("n", { n }));
  const commands = {
    cut: () => socket.conn.terminate(),
    async away() {
      await new Promise((resolve) => socket.disconnect(resolve));
      report("away");
    },
    back: () => socket.connect(),
    ...more,
  };
  for await (const line of createInterface({ input: process.stdin })) {
    await commands[JSON.parse(line).what]();
  }
  await new Promise((resolve) => socket.disconnect(resolve));
}

const scenarios = {
  /** Connects and joins. */
  async join() {
    const socket = connect();
    socket.onOpen(() => report("open"));
    const { response } = await join(socket);
    report("joined", { response });
  },

  /** Two clients; one pushes, both get it. */
  async talk() {
    const [alice, bob] = await Promise.all([connect(), connect()].map((socket) => join(socket)));
    const echo = next(alice.channel, "said");
    const heard = next(bob.channel, "said");
    const payload = { text: "grüß Gott 🙂".repeat(times), n: 1 };
    report("reply", { response: await answerTo(alice.channel.push("said", payload)) });
    report("echo", { payload: await echo });
    report("heard", { payload: await heard });
  },

  /** Joins a topic a second time on the same socket. */
  async duplicate() {
    const socket = connect();
    const { channel: first } = await join(socket);
    const closed = new Promise((resolve) => first.onClose(resolve));
    first.on("said", () => report("old channel heard"));
    const { channel: second } = await join(socket);
    await closed;
    report("first closed");
    const messages = messagesOf(socket);
    const heard = next(second, "said");
    await answerTo(second.push("said", {}));
    await heard;
    await answerTo(second.push("other", {}));
    report("second heard", { times: messages.filter((m) => m.event === "said").length });
  },

  /** The recipe of docs/resume.md; does what standard input says, until it ends. */
  async resumer() {
    const socket = connect();
    let last = null;
    const channel = socket.channel(topic, () => ({ resume: last }));
    channel.onMessage = (event, payload, ref) => {
      if (typeof ref === "string" && ref[0] === "@") last = ref;
      return payload;
    };
    channel.join().receive("ok", (response) => {
      last = response.position;
      report("joined", { response });
    });
    await comeAndGo(socket, channel, { where: () => report("where", { last }) });
  },

  /** The same with clients/js/resume.js. */
  async helped() {
    const socket = connect();
    const onLost = (reason) => report("lost", { reason });
    const channel = resume(socket, topic, { params: { as: name }, onLost });
    channel.join().receive("ok", (response) => report("joined", { response }));
    await comeAndGo(socket, channel);
  },

  /** Reports who is there and all else that happens; does what standard input says, until it ends. */
  async member() {
    const socket = connect();
    socket.onOpen(() => report("open"));
    socket.onClose((event) => report("closed", { code: event.code }));
    socket.onMessage(({ event, payload }) => {
      if (event.startsWith("presence_")) report("message", { event, payload });
    });
    let channel;
    const enter = () => {
      channel = socket.channel(topic, {});
      channel.onClose(() => report("channel closed"));
      const presence = new Presence(channel);
      presence.onJoin((user, before, { metas }) =>
        report("join", { user, metas, before: before ? before.metas : [] }));
      presence.onLeave((user, after, { metas }) =>
        report("leave", { user, metas, after: after.metas }));
      presence.onSync(() =>
        report("sync", { users: presence.list((user, { metas }) => ({ user, metas })) }));
      channel
        .join()
        .receive("ok", (response) => report("joined", { response }))
        .receive("error", (answer) => report("refused", { answer }));
    };
    const commands = {
      push({ event, payload }) {
        channel
          .push(event, payload)
          .receive("ok", (response) => report("answer", { status: "ok", response }))
          .receive("error", (response) => report("answer", { status: "error", response }));
      },
      leave: () => channel.leave(),
      enter,
      cut: () => socket.conn.terminate(), // the connection breaks; the package sees to the rest
    };
    enter();
    for await (const line of createInterface({ input: process.stdin })) {
      const { what, ...details } = JSON.parse(line);
      commands[what](details);
    }
    await new Promise((resolve) => socket.disconnect(resolve));
  },
};

setTimeout(() => {
  report("timeout", { after_ms: withinMs });
  process.exit(3);
}, withinMs).unref();

await scenarios[scenario]();
report("end");
process.exit(0);
