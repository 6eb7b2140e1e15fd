// Holds many unmodified phoenix.js clients, each following the recipe of docs for resuming, and reports what
// their applications see: one line of JSON, an array of items, every few milliseconds while there is any.
//
//   node fleet.mjs PACKAGES URL < OPTIONS
//
// PACKAGES is the folder the packages are installed in. OPTIONS is one line of JSON:
// {"topics": [name], "clients": [{"package", "v1", "polls", "token", "topics": [index]}]}. It ends when its
// standard input does. The items, with clients and topics as indexes:
//
//   ["got", client, topic, n]                        message n came, with a position
//   ["bare", client, topic, n]                       message n came without one
//   ["ok", client, topic, recovered, reason, last]   a join was answered; last is what was asked for
//   ["no", client, topic, reason]                    a join was refused
//   ["timeout", client, topic]                       a join was not answered in time
//   ["open", client]  ["closed", client, code]       its socket

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const FLUSH_MS = 50;

const [packages, url] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const WebSocket = require("ws");

let items = [];

function report(...item) {
  items.push(item);
}

setInterval(() => {
  if (items.length === 0) return;
  process.stdout.write(JSON.stringify(items) + "\n");
  items = [];
}, FLUSH_MS);

// The packages kept the option `vsn` and gave up the old serializer with it; this is that one.
const VERSION_1 = {
  vsn: "1.0.0",
  encode: (message, callback) => callback(JSON.stringify(message)),
  decode: (text, callback) => callback(JSON.parse(text)),
};

function start(client, { package: name, v1, polls, token, topics }, names) {
  const { LongPoll, Socket } = require(name);
  const transport = polls ? LongPoll : WebSocket;
  const options = { transport, params: { token }, ...(v1 ? VERSION_1 : {}) };
  const socket = new Socket(url, options);
  socket.onOpen(() => report("open", client));
  socket.onClose((event) => report("closed", client, event.code));
  socket.connect();
  for (const topic of topics) {
    let last = null;
    let asked = null;
    const channel = socket.channel(names[topic], () => ({ resume: (asked = last) }));
    channel.onMessage = (event, payload, ref) => {
      const placed = typeof ref === "string" && ref[0] === "@";
      if (placed) last = ref;
      if (event === "n" && !placed) report("bare", client, topic, payload.n);
      return payload;
    };
    channel.on("n", ({ n }) => report("got", client, topic, n));
    channel
      .join()
      .receive("ok", ({ recovered, reason, position }) => {
        last = position;
        report("ok", client, topic, recovered, reason, asked);
      })
      .receive("error", ({ reason }) => report("no", client, topic, reason))
      .receive("timeout", () => report("timeout", client, topic));
  }
}

const input = createInterface({ input: process.stdin });
input.once("line", (line) => {
  const { topics, clients } = JSON.parse(line);
  clients.forEach((options, client) => start(client, options, topics));
});
input.once("close", () => process.exit(0));
