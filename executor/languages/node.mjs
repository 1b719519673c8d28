// The main thread of a session's node process: runs cells in V8's REPL mode and tells the leader how they ended.
//
// It shares its realm with the guest's code, so it keeps little here and takes what it needs before the first cell.
// Reading the control channel and stopping a blocked cell is the work of node_guard.mjs, in a thread of its own.

import { AsyncLocalStorage } from "node:async_hooks";
import { Buffer } from "node:buffer";
import { Session } from "node:inspector";
import process from "node:process";
import { inspect } from "node:util";
import { promiseHooks } from "node:v8";
import { MessageChannel, Worker } from "node:worker_threads";

import { remember } from "./node_anchors.mjs";
import { Cells } from "./node_cells.mjs";
import { bundle } from "./node_display.mjs";
import { describe, describeSyntax, shorten } from "./node_errors.mjs";
import { linking } from "./node_guest.mjs";
import { CONTROL, send, writeAll } from "./node_output.mjs";
import { Questions } from "./node_questions.mjs";
import { State } from "./node_state.mjs";

const MAX_TEXT = 1_000_000; // characters of a shown value
const MAX_HELD = 20; // reports kept for the next cell
const STOPPED = { type: "Interrupted", message: "The cell was stopped.", line: null, traceback: "" };
const GOES_ON = "Timers and promises that the cell had started may still run.";
const REPL = { replMode: true, awaitPromise: true, objectGroup: "cell" };

const later = setImmediate;
const { log } = console;
const cellContext = new AsyncLocalStorage();
const state = new Int32Array(new SharedArrayBuffer(8)); // [0]: the running cell, 0 for none; [1]: the one last terminated

let running = null;
let held = [];
let dropped = 0;

function display(...values) {
  const cell = running;
  for (const value of values) {
    const shown = bundle(value, inspect, MAX_TEXT);
    if (!cell) log(value); // a timer between two cells: nobody takes a value now
    else if (!send({ event: "display", id: cell.id, ...shown, is_result: false })) {
      throw new RangeError("display() takes at most 8 MB; save what is larger as a file.");
    }
  }
}
Object.defineProperty(globalThis, "display", { value: display, writable: true, configurable: true, enumerable: false });

function hold(text) {
  if (held.length < MAX_HELD) held[held.length] = text; // no push: the guest may have replaced it
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

const session = new Session();
session.connect();
const channel = new MessageChannel();
const turn = new Int32Array(new SharedArrayBuffer(4));
const questions = new Questions(session, channel.port1, turn);
const { hand, handId } = questions;
const cells = new Cells();
const saved = new State(questions, cells);

// The real value behind what the inspector calls a remote object.
function real(remote) {
  const { unserializableValue: text } = remote; // -0, NaN, 10n and the like
  if (text !== undefined) return text.endsWith("n") ? BigInt(text.slice(0, -1)) : Number(text);
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

// The promise of every cell that has not settled. The inspector reports a collected one by calling into JavaScript from
// within the garbage collection, and that ends node: `await new Promise(() => {})` and a little patience would do it.
const awaited = new Map();

function execute(cell) {
  running = cell;
  Atomics.store(state, 0, cell.sequence);
  reportHeld();
  cells.saw(cell.number, cell.source);
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
      : describe(value, cell.number);
    const lines = cell.source.split("\n").length;
    if (error.line === null && details.url === `cell-${cell.number}`) error.line = Math.min(place.line, lines);
    finish(cell, "error", error);
    return;
  }
  if (result.type !== "undefined") {
    try {
      const text = inspect(real(result), { showProxy: true });
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
  const notices = status === "interrupted" ? [GOES_ON] : [];
  send({ event: "done", id: cell.id, status, error, return_code: status === "ok" ? 0 : 1, notices });
  session.post("Runtime.releaseObjectGroup", { objectGroup: "cell" });
}

const guard = new Worker(new URL("./node_guard.mjs", import.meta.url), {
  execArgv: ["--expose-internals", "--no-warnings"], // there alone: Node's own acorn reads the imports of a cell
  env: {},
  workerData: { state, control: CONTROL, sources: channel.port2, turn },
  transferList: [channel.port2],
  resourceLimits: { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 8 },
});
guard.on("message", (message) => {
  if (message.op === "execute") execute(message);
  else if (message.op === "cancel" && running?.sequence === message.sequence) {
    finish(running, "interrupted", STOPPED);
  } else if (message.op === "save") saved.save(message, running !== null);
  else if (message.op === "restore") saved.restore(message).then(send);
});
guard.on("error", (error) => {
  writeAll(2, Buffer.from(`The guard of this JavaScript session failed: ${error?.message}\n`));
  process.reallyExit(70);
});
remember();
guard.on("online", () => send({ event: "ready" }));
