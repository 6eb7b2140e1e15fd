// Reads an AsyncAPI document from standard input; reports what the official parser finds, a line each.

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
for (const { severity, code, path, message } of diagnostics) {
  const kind = ["error", "warning", "information", "hint"][severity];
  console.log(`${kind} ${code} at ${path.join("/")}: ${message}`);
}
process.exit(document ? 0 : 1);
