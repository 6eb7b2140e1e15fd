// Drives @supabase/realtime-js: node realtime.mjs VERSION-OF-THE-PROTOCOL.

import { follow, load, report } from "./lines.mjs";

const wire = process.argv[2];
const WebSocket = load("ws");
const { RealtimeClient } = load("@supabase/realtime-js");
const PREFIX = "realtime:"; // which it puts before each name

const sockets = new Map();
const channels = new Map();
const key = ({ as, topic }) => `${as} ${topic}`;

await follow({
  connect({ as, url, token, beat }) {
    const client = new RealtimeClient(url, {
      transport: WebSocket,
      params: { apikey: "of the project", token },
      vsn: `${wire}.0.0`,
      ...(beat ? { heartbeatIntervalMs: beat } : {}),
    });
    const { socketAdapter: socket } = client;
    socket.onOpen(() => report("open", as));
    socket.onError(() => report("error", as));
    socket.onClose((event) => report("closed", as, { code: event?.code ?? null }));
    client.connect();
    sockets.set(as, client);
  },

  close: ({ as }) => sockets.get(as).disconnect(),

  join(command) {
    const { as, topic, presence } = command;
    const config = { broadcast: { self: true, ack: true } };
    const channel = sockets.get(as).channel(topic.slice(PREFIX.length), { config });
    channel.on("broadcast", { event: "*" }, ({ event, payload }) => report("heard", as, { topic, event, payload }));
    if (presence) {
      channel.on("presence", { event: "sync" }, () => {
        const users = Object.entries(channel.presenceState()).map(([user, metas]) => [user, metas.length]);
        report("present", as, { users: Object.fromEntries(users) });
      });
    }
    channel.subscribe((status, error) => {
      if (status === "SUBSCRIBED") report("joined", as, { topic, response: {} });
      if (status === "CHANNEL_ERROR" && error?.cause?.reason) {
        channel.unsubscribe(); // or it would try again for ever
        report("refused", as, { topic, response: error.cause });
      }
    });
    channels.set(key(command), channel);
  },

  async push(command) {
    const { as, topic, event, payload } = command;
    if (event === "access_token") await sockets.get(as).setAuth(payload.access_token);
    const sent = event === "access_token" ? "ok" : await channels.get(key(command)).send({ type: "broadcast", event, payload });
    report("answer", as, { status: sent, response: {} });
  },

  leave: (command) =>
    channels
      .get(key(command))
      .unsubscribe()
      .then(() => report("left", command.as)),
});
