// A thread beside the guest's: reads the control channel, rewrites imports, and stops a main thread that is blocked.
//
// The guest's code never runs in this thread. Stopping is done in three steps, each tried when the one before has not
// helped: a message (the cell waits for a promise), `terminateExecution` (it computes), SIGINT to the processes that it
// waits for (it sits in `execSync`).

import { Session } from "node:inspector";
import { Socket } from "node:net";
import { Script } from "node:vm";
import { parentPort, workerData } from "node:worker_threads";

import { rewrite } from "./node_imports.mjs";
import { readSource } from "./node_sources.mjs";

const MAX_FRAME = 8 * 1024 * 1024;
const PATIENCE = 10; // milliseconds between one step and the next
const STEPS = 500;

const { state, control, sources, turn } = workerData;
let sequence = 0;
let stopping = 0;

function execute({ id, code, number }) {
  sequence += 1;
  const cell = { op: "execute", sequence, id, number, code, source: code, problem: null };
  if (/\b(?:im|ex)port\b/.test(code)) {
    try {
      cell.code = rewrite(code);
    } catch (error) {
      if (!(error instanceof SyntaxError) || !error.loc) throw error;
      const message = error.message.replace(/ \(\d+:\d+\)$/, "");
      cell.problem = { message, line: error.loc.line, column: error.loc.column };
    }
  }
  if (!cell.problem && isObject(cell.code)) cell.code = `(${cell.code}\n)`;
  parentPort.postMessage(cell);
}

// `{ a: 1 }` means an object where a value is to be shown, and a block where it can be nothing else: Node's REPL does so.
function isObject(code) {
  if (!/^\s*\{/.test(code) || /;\s*$/.test(code)) return false;
  try {
    return Boolean(new Script(`(${code}\n)`)); // read, never run
  } catch {
    return false;
  }
}

function interrupt() {
  if (stopping === sequence || sequence === 0) return;
  stopping = sequence;
  const wanted = sequence;
  parentPort.postMessage({ op: "cancel", sequence: wanted });
  let session = null; // an open one would hold up the end of the process
  let step = 0;
  const timer = setInterval(() => {
    step += 1;
    // the slot is 0 as well while the cell has not begun; its message was sent before ours, so it will see the cancel
    if (Atomics.load(state, 0) !== wanted || step > STEPS) {
      clearInterval(timer);
      session?.disconnect();
      if (stopping === wanted) stopping = 0;
      return;
    }
    Atomics.store(state, 1, wanted);
    if (!session) {
      session = new Session();
      session.connectToMainThread();
    }
    session.post("Runtime.terminateExecution", () => {});
    if (step % 20 === 5) stopChildren();
  }, PATIENCE);
}

function stopChildren() {
  try {
    process.kill(-process.pid, "SIGINT"); // only where node leads a process group of its own
  } catch {
    // it leads none, or is alone: nothing to stop
  }
}

// The main thread sleeps until `turn` is 1: see Questions.analyse.
sources.on("message", (texts) => {
  sources.postMessage(texts.map(readSource));
  Atomics.store(turn, 0, 1);
  Atomics.notify(turn, 0);
});

let pending = Buffer.alloc(0);
const channel = new Socket({ fd: control, readable: true, writable: false });
channel.on("data", (data) => {
  pending = pending.length ? Buffer.concat([pending, data]) : data;
  while (pending.length >= 4) {
    const size = pending.readUInt32BE(0);
    if (size > MAX_FRAME) throw new Error("a frame is too long");
    if (pending.length < 4 + size) break;
    const message = JSON.parse(pending.subarray(4, 4 + size).toString());
    pending = pending.subarray(4 + size);
    if (message.op === "execute") execute(message);
    else if (message.op === "interrupt") interrupt();
    else parentPort.postMessage(message);
  }
});
const leaderIsGone = () => process.kill(process.pid, "SIGKILL");
channel.on("end", leaderIsGone);
channel.on("error", leaderIsGone);
