// The main thread of a session's node process: runs cells in V8's REPL mode and tells the leader how they ended.
//
// It shares its realm with the guest's code, so it keeps little here and takes what it needs before the first cell.
// Reading the control channel and stopping a blocked cell is the work of node_guard.mjs, in a thread of its own.

import { AsyncLocalStorage } from "node:async_hooks";
import { Buffer } from "node:buffer";
import { Console } from "node:console";
import { writeSync } from "node:fs";
import { Session } from "node:inspector";
import { Module, createRequire, registerHooks } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { Writable } from "node:stream";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { promiseHooks } from "node:v8";
import vm from "node:vm";
import { Worker } from "node:worker_threads";

import { bundle } from "./node_display.mjs";

const CONTROL = 3;
const MAX_FRAME = 8 * 1024 * 1024;
const MAX_TEXT = 1_000_000; // characters of a shown value
const MAX_TRACEBACK = 6_000; // characters
const MAX_FRAMES = 8; // stack frames of a traceback
const MAX_HELD = 20; // reports kept for the next cell

const folder = process.cwd();
const { stringify } = JSON;
const later = setImmediate;
const cellContext = new AsyncLocalStorage();
const state = new Int32Array(new SharedArrayBuffer(8)); // [0]: the running cell, 0 for none; [1]: the cell last terminated
const STOPPED = { type: "Interrupted", message: "The cell was stopped.", line: null, traceback: "" };
const KEPT = "The cell was stopped; variables are kept. Timers and promises that it had started may still run.";
const pause = new Int32Array(new SharedArrayBuffer(4));

let running = null;
let held = [];
let dropped = 0;

// --- the channel ---------------------------------------------------------------------------------------------------

function writeAll(fd, bytes) {
  for (let offset = 0; offset < bytes.length; ) {
    try {
      offset += writeSync(fd, bytes, offset);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(pause, 0, 0, 1); // full: the leader reads, sooner or later
    }
  }
}

function send(message) {
  const body = Buffer.from(stringify(message));
  if (body.length > MAX_FRAME) return false;
  const size = Buffer.alloc(4);
  size.writeUInt32BE(body.length);
  writeAll(CONTROL, Buffer.concat([size, body]));
  return true;
}

// Node's own streams queue what a pipe cannot take: a loop that prints would fill the memory, and the end of a cell would
// overtake its output. These wait instead.
class Output extends Writable {
  constructor(fd) {
    super({ decodeStrings: true });
    this.fd = fd;
    this._type = "pipe";
  }

  _write(chunk, _encoding, done) {
    try {
      writeAll(this.fd, chunk);
      done();
    } catch (error) {
      done(error);
    }
  }

  // the streams belong to the session and outlive whoever thinks that it is done with them
  end(chunk, encoding, done) {
    if (chunk !== undefined && chunk !== null && typeof chunk !== "function") this.write(chunk, encoding);
    [chunk, encoding, done].find((item) => typeof item === "function")?.();
    return this;
  }

  destroy() {
    return this;
  }
}
for (const [name, fd] of [["stdout", 1], ["stderr", 2]]) {
  const stream = new Output(fd);
  Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
}

// --- what a guest sees ---------------------------------------------------------------------------------------------

const cellFile = join(folder, "cell.js");
const packages = pathToFileURL(join(folder, ".packages", "node", "cell.js")).href;

// import has no NODE_PATH: what is not found from the session's folder is looked for among its packages
registerHooks({
  resolve(specifier, context, next) {
    try {
      return next(specifier, context);
    } catch (error) {
      const bare = !/^(\.{0,2}\/|[a-z][a-z0-9+.-]*:)/i.test(specifier);
      if (bare && /MODULE_NOT_FOUND$/.test(error?.code) && context.parentURL !== packages) {
        try {
          return next(specifier, { ...context, parentURL: packages });
        } catch {
          // the first error names the importing file, the second would name ours
        }
      }
      throw error;
    }
  },
});

const importFrom = vm.compileFunction(
  "return options === undefined ? import(specifier) : import(specifier, options)",
  ["specifier", "options"],
  { filename: cellFile, importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER },
);
const importing = (specifier, options) => importFrom(specifier, options);
const linking = new WeakSet(); // syntax errors that are about modules and have no place in the cell
importing.names = async (specifier, names, options) => {
  const namespace = await importFrom(specifier, options);
  for (const name of names) {
    if (!(name in namespace)) {
      const error = new SyntaxError(`The requested module '${specifier}' does not provide an export named '${name}'`);
      linking.add(error);
      throw error;
    }
  }
  return namespace;
};
importing.meta = Object.freeze({
  url: pathToFileURL(cellFile).href,
  filename: cellFile,
  dirname: folder,
  main: true,
  resolve: (specifier) => {
    const found = guestRequire.resolve(specifier);
    return found.startsWith("/") ? pathToFileURL(found).href : found;
  },
});

const guestRequire = createRequire(cellFile);
const guestModule = new Module(cellFile);
guestModule.filename = cellFile;
guestModule.paths = Module._nodeModulePaths(folder);
guestModule.require = guestRequire;
guestRequire.main = guestModule; // `if (require.main === module)` is how scripts start

function display(...values) {
  const cell = running;
  for (const value of values) {
    const shown = bundle(value, inspect, MAX_TEXT);
    if (!send({ event: "display", id: cell?.id ?? "none", ...shown, is_result: false })) {
      throw new RangeError("display() takes at most 8 MB; save what is larger as a file.");
    }
  }
}

const hidden = (value) => ({ value, writable: true, configurable: true, enumerable: false });
Object.defineProperties(globalThis, {
  require: hidden(guestRequire),
  module: hidden(guestModule),
  exports: hidden(guestModule.exports),
  __filename: hidden(cellFile),
  __dirname: hidden(folder),
  display: hidden(display),
  // imports of a cell are rewritten to this: V8's REPL mode has no loader of its own
  __import__: { value: importing, writable: false, configurable: false, enumerable: false },
});
// Node's modules without `require`, as `node -e` has them
for (const name of Module.builtinModules) {
  if (name in globalThis || /^_|[/:]|^(sys|wasi|trace_events|inspector|test|sqlite)$/.test(name)) continue;
  Object.defineProperty(globalThis, name, {
    configurable: true,
    enumerable: false,
    get: () => guestRequire(name),
    set: (value) => Object.defineProperty(globalThis, name, { ...hidden(value), enumerable: true }),
  });
}
process.argv = [process.execPath, cellFile];

// The global console reports every call to an open inspector session as well, which keeps what was printed alive.
const plainConsole = new Console({ stdout: process.stdout, stderr: process.stderr });
plainConsole.Console = Console;
Object.defineProperty(globalThis, "console", { ...hidden(plainConsole) });

// --- errors --------------------------------------------------------------------------------------------------------

const OURS = /node_(guard|display)\.mjs|languages\/node\.mjs|node:inspector|node:internal|node:async_hooks/;

// Frames from ours on belong to no guest: the ones below are how we came to run the cell.
Error.prepareStackTrace = (error, frames) => {
  const own = frames.findIndex((frame) => /languages\/node\.mjs$|^node:inspector$/.test(frame.getFileName() ?? ""));
  const kept = own < 0 ? frames : frames.slice(0, own);
  let head = "Error";
  try {
    head = Error.prototype.toString.call(error);
  } catch {
    // a name or a message that cannot be read
  }
  // V8 takes no blank in a sourceURL, people read one more easily
  return head + kept.map((frame) => `\n    at ${`${frame}`.replace(/\bcell-(\d+):/, "cell $1:")}`).join("");
};

function shorten(text, most) {
  return text.length > most ? `${text.slice(0, most)}… (${text.length - most} more characters)` : text;
}

function describe(error, number) {
  const found = { type: "Error", message: "", line: null, traceback: "" };
  try {
    if (error instanceof Error || Object.prototype.toString.call(error) === "[object Error]") {
      found.type = `${error.name || error.constructor?.name || "Error"}`.slice(0, 200);
      found.message = shorten(`${error.message}`, MAX_TRACEBACK);
    } else {
      found.type = error === null ? "null" : typeof error === "object" ? error.constructor?.name || "Object" : typeof error;
      found.message = shorten(typeof error === "string" ? error : inspect(error), MAX_TRACEBACK);
    }
    let frames = 0;
    const lines = [];
    for (const line of inspect(error).split("\n")) {
      if (!/^\s+at /.test(line)) lines[lines.length] = line;
      else if (!OURS.test(line) && ++frames <= MAX_FRAMES) lines[lines.length] = line;
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
function describeSyntax({ message, line, column, number, source }) {
  const lines = source.split("\n");
  const at = Math.min(Math.max(line, 1), lines.length);
  const text = lines[at - 1] ?? "";
  const excerpt = text.length > 200 ? "" : `${text}\n${" ".repeat(Math.min(column, text.length))}^\n`;
  return {
    type: "SyntaxError",
    message,
    line: at,
    traceback: `cell ${number}:${at}\n${excerpt}Uncaught SyntaxError: ${message}`,
  };
}

function hold(text) {
  if (held.length < MAX_HELD) held[held.length] = shorten(text, MAX_TRACEBACK); // no push: the guest may have replaced it
  else dropped += 1;
}

function reportHeld() {
  if (!held.length) return;
  const texts = held;
  if (dropped) texts[texts.length] = `… and ${dropped} more`;
  held = [];
  dropped = 0;
  writeAll(2, Buffer.from(`${texts.join("\n")}\n`));
}

// An error that no cell was there to catch: thrown by a timer, an emitter, a promise. It never ends the process.
process.setUncaughtExceptionCaptureCallback((error) => {
  const number = cellContext.getStore() ?? Number(/\bcell (\d+):/.exec(`${error?.stack}`)?.[1] ?? running?.number ?? 0);
  if (process.listenerCount("uncaughtException")) {
    process.emit("uncaughtException", error, "uncaughtException");
  } else if (running?.number === number) {
    finish(running, "error", describe(error, number));
  } else {
    hold(`[cell ${number}] ${describe(error, number).traceback}`);
    if (running) reportHeld();
  }
});
const { reallyExit } = process;
process.reallyExit = (code) => {
  session.disconnect(); // else node prints that it waits for a debugger
  reallyExit.call(process, code);
};
process.on("SIGINT", () => {}); // the guard stops synchronous children with it; node itself must live on

// --- cells ---------------------------------------------------------------------------------------------------------

const session = new Session();
session.connect();
const hand = { value: undefined };
globalThis.__hand__ = hand;
let handId;
session.post("Runtime.evaluate", { expression: "__hand__" }, (error, reply) => {
  handId = reply.result.objectId;
});
delete globalThis.__hand__;

// The real value behind what the inspector calls a remote object.
function real(remote) {
  if (remote.objectId === undefined) return remote.value;
  hand.value = undefined;
  session.post("Runtime.callFunctionOn", {
    objectId: handId,
    functionDeclaration: "function (value) { this.value = value; }",
    arguments: [{ objectId: remote.objectId }],
  });
  const { value } = hand;
  hand.value = undefined;
  return value;
}

const REPL = { replMode: true, awaitPromise: true, objectGroup: "cell" };

// The promise of every cell that has not settled. The inspector reports a collected one by calling into JavaScript from
// within the garbage collection, and that ends node: `await new Promise(() => {})` and a little patience would do it.
const awaited = new Map();

function execute(cell) {
  running = cell;
  Atomics.store(state, 0, cell.sequence);
  reportHeld();
  if (cell.problem) {
    finish(cell, "error", describeSyntax({ ...cell.problem, number: cell.number, source: cell.source }));
    return;
  }
  const expression = `${cell.code}\n//# sourceURL=cell-${cell.number}`;
  const stop = promiseHooks.onInit((promise) => {
    awaited.set(cell.sequence, promise); // the first one is the cell's own
    stop();
  });
  cellContext.run(cell.number, () => {
    session.post("Runtime.evaluate", { expression, ...REPL }, (error, reply) => {
      awaited.delete(cell.sequence);
      settle(cell, error, reply);
    });
  });
  stop();
}

function settle(cell, failure, reply) {
  if (cell !== running) return; // stopped or failed before
  if (failure) {
    if (Atomics.load(state, 1) === cell.sequence) finish(cell, "interrupted", STOPPED);
    else finish(cell, "error", { type: "Error", message: failure.message, line: null, traceback: "" });
    return;
  }
  const { result, exceptionDetails: details } = reply;
  if (details) {
    const thrown = details.exception ?? {};
    const value = real(thrown);
    const compiled = thrown.className === "SyntaxError" && !linking.has(value) && !/\n\s+at /.test(`${value?.stack}`);
    const place = { line: details.lineNumber + 1, column: details.columnNumber, number: cell.number };
    const error = compiled
      ? describeSyntax({ ...place, message: `${value?.message}`, source: cell.source })
      : describe("unserializableValue" in thrown ? Number(thrown.unserializableValue) : value, cell.number);
    const lines = cell.source.split("\n").length;
    if (error.line === null && details.url === `cell-${cell.number}`) error.line = Math.min(place.line, lines);
    finish(cell, "error", error);
    return;
  }
  if (result.type !== "undefined") {
    try {
      const text = result.unserializableValue ?? inspect(real(result), { showProxy: true });
      const shown = { data: { "text/plain": shorten(text, MAX_TEXT) }, picture: null, is_result: true };
      send({ event: "display", id: cell.id, ...shown });
    } catch (error) {
      finish(cell, "error", describe(error, cell.number));
      return;
    }
  }
  // one turn of the loop, so that a promise rejected by the last statement is still this cell's
  later(() => finish(cell, "ok", null));
}

function finish(cell, status, error) {
  if (cell !== running) return;
  running = null;
  Atomics.store(state, 0, 0);
  const notices = status === "interrupted" ? [KEPT] : [];
  send({ event: "done", id: cell.id, status, error, return_code: status === "ok" ? 0 : 1, notices });
  session.post("Runtime.releaseObjectGroup", { objectGroup: "cell" });
}

const guard = new Worker(new URL("./node_guard.mjs", import.meta.url), {
  execArgv: ["--expose-internals", "--no-warnings"], // there alone: Node's own acorn reads the imports of a cell
  env: {},
  workerData: { state, control: CONTROL },
  resourceLimits: { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 8 },
});
guard.on("message", (message) => {
  if (message.op === "execute") execute(message);
  else if (message.op === "cancel" && running?.sequence === message.sequence) {
    finish(running, "interrupted", STOPPED);
  }
});
guard.on("error", (error) => {
  writeAll(2, Buffer.from(`The guard of this JavaScript session failed: ${error?.message}\n`));
  process.reallyExit(70);
});
guard.on("online", () => send({ event: "ready" }));
