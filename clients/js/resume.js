/**
 * Channels that miss nothing, for the phoenix package from 1.6 on. Gateway's docs/resume.md tells what happens.
 */

/**
 * A channel that asks, each time it joins, for what it missed since the last message it got. Join it as any other.
 * Its `join` and `onMessage` are taken: whatever else is set there must call what was there before.
 */
export function resume(socket, topic, { params = {}, from = null, onLost = () => {} } = {}) {
  let last = from;
  const own = () => (typeof params === "function" ? params() : params);
  const channel = socket.channel(topic, () => ({ ...own(), resume: last }));
  channel.onMessage = (_event, payload, ref) => {
    if (typeof ref === "string" && ref[0] === "@") last = ref;
    return payload;
  };
  const join = channel.join.bind(channel);
  channel.join = (timeout) =>
    join(timeout).receive("ok", (reply) => {
      last = reply.position;
      if (reply.recovered === false) onLost(reply.reason);
    });
  return channel;
}
