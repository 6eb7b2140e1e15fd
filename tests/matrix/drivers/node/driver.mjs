// Drives phoenix and what descends from it: node driver.mjs PACKAGE VERSION-OF-THE-PROTOCOL. What it is told and reports
// stands in tests/matrix/driver.py. The packages are used as published.

import { follow, load, report } from "./lines.mjs";

const [name, wire] = process.argv.slice(2);
const WebSocket = load("ws");
const { Socket, Presence } = load(name);

// The packages kept the option `vsn` and gave up the old serializer with it; this is that one.
const VERSION_1 = {
  vsn: "1.0.0",
  encode: (message, callback) => callback(JSON.stringify(message)),
  decode: (text, callback) => callback(JSON.parse(text)),
};
const ANCIENT = ["phoenix-1.3", "phoenix-socket", "phoenix-channels"]; // which take no functions, and speak one version

const sockets = new Map();
const channels = new Map();
const key = ({ as, topic }) => `${as} ${topic}`;

function shown(payload) {
  const bytes = payload instanceof ArrayBuffer ? new Uint8Array(payload) : null;
  return bytes ? { bytes: [...bytes] } : payload;
}

/** Reports who is there: by the class of later packages, by the functions of earlier ones. */
function follow_presence(channel, tell) {
  if (typeof Presence === "function") {
    const presence = new Presence(channel);
    presence.onSync(() => tell(presence.list((user, { metas }) => [user, metas.length])));
    return;
  }
  let users = {};
  const list = () => tell(Presence.list(users, (user, { metas }) => [user, metas.length]));
  channel.on("presence_state", (state) => {
    users = Presence.syncState(users, state);
    list();
  });
  channel.on("presence_diff", (diff) => {
    users = Presence.syncDiff(users, diff);
    list();
  });
}

function answered(push, as) {
  for (const status of ["ok", "error"]) {
    push.receive(status, (response) => report("answer", as, { status, response }));
  }
}

await follow({
  connect({ as, url, token, renews, beat }) {
    const given = { token };
    const params = () => ({ token: given.token });
    const socket = new Socket(url, {
      transport: WebSocket,
      params: renews ? params : params(),
      ...(beat ? { heartbeatIntervalMs: beat } : {}),
      ...(wire === "1" && !ANCIENT.includes(name) ? VERSION_1 : {}),
    });
    socket.onOpen(() => report("open", as));
    socket.onError(() => report("error", as));
    socket.onClose((event) => report("closed", as, { code: event?.code ?? null }));
    socket.connect();
    sockets.set(as, { socket, given });
  },

  close: ({ as }) => sockets.get(as).socket.disconnect(),

  token: ({ as, token }) => (sockets.get(as).given.token = token),

  join(command) {
    const { as, topic, resume, presence } = command;
    // A function where the package calls it at each join; else the one object that it sends at each.
    const params = resume ? { resume: null } : {};
    const asked = ANCIENT.includes(name) ? params : () => params;
    const channel = sockets.get(as).socket.channel(topic, asked);
    if (resume) {
      channel.onMessage = (event, payload, ref) => {
        if (typeof ref === "string" && ref[0] === "@") params.resume = ref;
        return payload;
      };
    }
    for (const event of ["said", "blob"]) {
      channel.on(event, (payload) => report("heard", as, { topic, event, payload: shown(payload) }));
    }
    if (presence) follow_presence(channel, (users) => report("present", as, { users: Object.fromEntries(users) }));
    channel
      .join()
      .receive("ok", (response) => {
        if (resume) params.resume = response.position;
        report("joined", as, { topic, response });
      })
      .receive("error", (response) => {
        channel.leave(); // or it would try again for ever
        report("refused", as, { topic, response });
      });
    channels.set(key(command), channel);
  },

  push: (command) => answered(channels.get(key(command)).push(command.event, command.payload), command.as),

  blob: (command) =>
    answered(channels.get(key(command)).push(command.event, Uint8Array.from(command.bytes).buffer), command.as),

  leave: (command) =>
    channels
      .get(key(command))
      .leave()
      .receive("ok", () => report("left", command.as)),
});
