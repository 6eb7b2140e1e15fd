import type { Channel, Socket } from "phoenix";

/** Where a message stands in the history of its topic: opaque, and begins with `@`. */
export type Position = string;

/** Why what was missed cannot be had. */
export type Lost = "epoch_changed" | "expired" | "too_many" | "no_history";

export interface ResumeOptions {
  /** Params of the join, beside `resume`. */
  params?: object | (() => object);
  /** Where the first join begins: after a position, with the newest messages, or (null) with what comes. */
  from?: Position | { last: number } | null;
  /** What was missed is gone: fetch the state anew. */
  onLost?: (reason: Lost) => void;
}

/** A channel that asks, each time it joins, for what it missed since the last message it got. Join it as any other. */
export function resume(socket: Socket, topic: string, options?: ResumeOptions): Channel;
