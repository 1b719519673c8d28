// Turns what a cell threw into words: type, message, line within the cell, and a short stack without our own frames.

import { inspect } from "node:util";

const MAX_TRACEBACK = 6_000; // characters
const MAX_FRAMES = 8; // stack frames of a traceback
const OWN = new URL("./node", import.meta.url).href; // what the names of our own modules begin with
const MACHINERY = ["node:inspector", "node:internal", "node:async_hooks", OWN];

const isOwn = (file) => file === "node:inspector" || file.startsWith(OWN);

// Of our own frames, the top ones are what the cell called, and those from the next one on are how the cell was called.
Error.prepareStackTrace = (error, frames) => {
  const own = frames.map((frame) => isOwn(frame.getFileName() ?? ""));
  const start = Math.max(own.indexOf(false), 0);
  const end = own.indexOf(true, start);
  let kept = frames.slice(start, end < start ? frames.length : end);
  // an error of V8's parser was made below ours alone
  if (start && kept.every((frame) => /^node:/.test(frame.getFileName() ?? "node:"))) kept = [];
  let head = "Error";
  try {
    head = Error.prototype.toString.call(error);
  } catch {
    // a name or a message that cannot be read
  }
  // V8 takes no blank in a sourceURL, people read one more easily
  return head + kept.map((frame) => `\n    at ${`${frame}`.replace(/\bcell-(\d+):/, "cell $1:")}`).join("");
};

export function shorten(text, most) {
  return text.length > most ? `${text.slice(0, most)}… (${text.length - most} more characters)` : text;
}

// What the cell `number` threw, whatever it is.
export function describe(error, number) {
  const found = { type: "Error", message: "", line: null, traceback: "" };
  try {
    if (error instanceof Error || Object.prototype.toString.call(error) === "[object Error]") {
      found.type = `${error.name || error.constructor?.name || "Error"}`.slice(0, 200);
      found.message = shorten(`${error.message}`, MAX_TRACEBACK);
    } else {
      const kind = error === null ? "null" : typeof error;
      found.type = kind === "object" ? `${error.constructor?.name || "Object"}`.slice(0, 200) : kind;
      found.message = shorten(typeof error === "string" ? error : inspect(error), MAX_TRACEBACK);
    }
    let frames = 0;
    const lines = [];
    for (const line of inspect(error).split("\n")) {
      if (!/^\s+at /.test(line)) lines[lines.length] = line;
      else if (!MACHINERY.some((name) => line.includes(name)) && ++frames <= MAX_FRAMES) lines[lines.length] = line;
      else if (line.endsWith(" {")) lines[lines.length - 1] += " {"; // the error's own properties follow
    }
    found.traceback = shorten(`Uncaught ${lines.join("\n")}`, MAX_TRACEBACK);
    const place = new RegExp(`\\bcell ${number}:(\\d+)`).exec(`${error?.stack}`);
    if (place) found.line = Number(place[1]);
  } catch {
    found.traceback ||= `Uncaught ${found.type}: ${found.message}`;
  }
  return found;
}

// An error that V8 found while reading: there are no frames, the place is in the details.
export function describeSyntax({ message, line, column, number, source }) {
  const lines = source.split("\n");
  const at = Math.min(Math.max(line, 1), lines.length);
  const text = lines[at - 1] ?? "";
  const excerpt = text.length > 200 ? "" : `${text}\n${" ".repeat(Math.min(column, text.length))}^\n`;
  return {
    type: "SyntaxError",
    message: shorten(message, MAX_TRACEBACK),
    line: at,
    traceback: shorten(`cell ${number}:${at}\n${excerpt}Uncaught SyntaxError: ${message}`, MAX_TRACEBACK),
  };
}
