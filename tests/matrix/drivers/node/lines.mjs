// Lines of JSON: what a driver is told, and what it reports.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

/** The packages are those of the folder that a driver is started in. */
export const load = createRequire(`${process.cwd()}/package.json`);

export function report(saw, as, details = {}) {
  process.stdout.write(JSON.stringify({ saw, as, ...details }) + "\n");
}

// What a package throws within its socket's callbacks stands in a page's console, and the page goes on.
process.on("uncaughtException", (error) => report("thrown", "any", { text: String(error) }));

/** Do what standard input says, until it ends. */
export async function follow(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: what, ...details } = JSON.parse(line);
    commands[what](details);
  }
  process.exit(0);
}
