// Saves what a session's cells have made to a file, and takes it over from one: the names, the folder, the environment.
//
// A file is one line of JSON, which the leader reads as well, and what V8's serializer made of one object: values that lead
// to nothing special as they are, the rest as the nodes of node_graph.mjs. Only an idle session is saved.

import { Buffer } from "node:buffer";
import { closeSync, constants, mkdirSync, openSync, readFileSync, renameSync, unlinkSync } from "node:fs";
import { isAbsolute, join, relative } from "node:path";
import process from "node:process";
import v8 from "node:v8";
import vm from "node:vm";
import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";

import { Table, anchors, baseline, changes, isOwnModule, reach } from "./node_anchors.mjs";
import { Graph, property, typeName } from "./node_graph.mjs";
import { folder } from "./node_guest.mjs";
import { writeAll } from "./node_output.mjs";
import { Revival } from "./node_revive.mjs";

const PATIENCE = 10_000; // milliseconds that a saving may take, or the taking over without its imports
const MAX_NAMES = 500;
const MAX_WORDS = 200; // characters of a name, a type, a reason
const MAX_HEAD = 250_000; // bytes of the first line
const MAX_HISTORY = 4_000_000; // characters of the cells remembered
const STRICT = /^(?:\s|\/\/.*|\/\*[^]*?\*\/|;)*(['"])use strict\1/;
const IDENTIFIER = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*$/u;
const { Object, Reflect } = globalThis;
const { stringify, parse } = JSON;
const { chdir, cwd, getActiveResourcesInfo } = process;
const startEnvironment = { ...process.env };
const HANDLES = {
  __proto__: null,
  Timeout: "timer that had not fired", Immediate: "callback that had not run", TCPSocketWrap: "open socket",
  TCPServerWrap: "server", ProcessWrap: "running process", FSReqCallback: "file operation under way",
  UDPWRAP: "open socket", PipeServerWrap: "server",
};

const cut = (text) => `${text}`.slice(0, MAX_WORDS);

// What shows in a source that `name` is given a value or declared there, and that it is mentioned at all.
function patterns(name) {
  const text = name.replace(/[^\p{ID_Continue}]/gu, "\\$&");
  const given = `(?<![.\\w$])(?<!globalThis)${text}\\s*(?:=(?![=>])|[-+*/%&|^?]{1,2}=)|globalThis\\.${text}\\s*=(?!=)`;
  const declared = `\\b(?:let|const|var|class|function\\s*\\*?|import)\\b[^;=]{0,200}?(?<![.\\w$])${text}(?![\\w$])`;
  return [new RegExp(`${given}|${declared}`, "u"), new RegExp(`(?<![\\w$])${text}(?![\\w$])`, "u")];
}

export class State {
  // `session` is an inspector session; `port` and `turn` lead to the guard, which parses.
  constructor(session, port, turn) {
    this.session = session;
    this.port = port;
    this.turn = turn;
    this.history = [];
    this.remembered = 0;
    this.strict = false;
    this.madeBefore = new Table(); // name to cell, from a restored state
    this.origins = new WeakMap(); // restored function to its place
    this.verdicts = new WeakMap(); // function to whether it closes over something
    this.hand = { value: undefined };
    globalThis.__hand__ = this.hand;
    this.handId = this.post("Runtime.evaluate", { expression: "__hand__" }).result.objectId;
    delete globalThis.__hand__;
  }

  static channel() {
    return { channel: new MessageChannel(), turn: new Int32Array(new SharedArrayBuffer(4)) };
  }

  post(method, parameters) {
    let answer = null;
    this.session.post(method, parameters, (error, reply) => {
      if (error) throw new Error(error.message);
      answer = reply;
    });
    return answer;
  }

  // Remember what cell `number` was, to say later which one made a name.
  saw(number, source) {
    this.history[this.history.length] = { number, source };
    this.remembered += source.length;
    for (; this.remembered > MAX_HISTORY && this.history.length > 1; ) this.remembered -= this.history.shift().source.length;
    this.strict ||= STRICT.test(source);
  }

  // The inspector's number of `value`.
  remote(value) {
    this.hand.value = value;
    const { result } = this.post("Runtime.callFunctionOn", {
      objectId: this.handId, functionDeclaration: "function () { return this.value; }", objectGroup: "state",
    });
    this.hand.value = undefined;
    return result.objectId;
  }

  // Own keys of an array or a view that are no indices, without asking for the indices.
  extras(value) {
    const { result } = this.post("Runtime.getProperties", {
      objectId: this.remote(value), ownProperties: true, nonIndexedPropertiesOnly: true,
    });
    const keys = Object.getOwnPropertySymbols(value);
    for (let i = 0; i < result.length; i += 1) {
      if (!result[i].symbol && result[i].name !== "length" && result[i].name !== "__proto__") keys[keys.length] = result[i].name;
    }
    return keys;
  }

  // Whether a function uses variables other than the session's own names, by the scopes that V8 has linked to it.
  closes(value, { kind, name }) {
    const known = this.verdicts.get(value);
    if (known !== undefined) return known;
    const inside = this.post("Runtime.getProperties", { objectId: this.remote(value), ownProperties: true });
    const scopes = inside.internalProperties?.find((item) => item.name === "[[Scopes]]");
    let found = !scopes;
    const list = scopes ? this.post("Runtime.getProperties", { objectId: scopes.value.objectId, ownProperties: true }).result : [];
    let ownScopes = 0;
    for (let i = 0; i < list.length; i += 1) {
      const { value: scope, name: place } = list[i];
      if (!/^\d+$/.test(place) || scope.description === "Script" || scope.description === "Global") continue;
      const names = this.post("Runtime.getProperties", { objectId: scope.objectId, ownProperties: true });
      // a class has a scope of its own, for its name and its private ones
      const own = kind === "class" && scope.description === "Block" && ownScopes === 0 &&
        names.result.every((item) => (item.name === name && name) || /^[#.]/.test(item.name));
      ownScopes += 1;
      if (!own) found = true;
    }
    this.verdicts.set(value, found);
    return found;
  }

  // What the parser says of each source; it sits in the guard's thread.
  analyse(sources) {
    Atomics.store(this.turn, 0, 0);
    this.port.postMessage(sources);
    if (Atomics.wait(this.turn, 0, 0, PATIENCE) === "timed-out") throw new Error("the sources took too long to read");
    return receiveMessageOnPort(this.port).message;
  }

  origin(value, source) {
    const known = this.origins.get(value);
    if (known) return known;
    for (let i = this.history.length - 1; i >= 0; i -= 1) {
      const at = this.history[i].source.indexOf(source);
      if (at < 0) continue;
      const before = this.history[i].source.slice(0, at).split("\n");
      return { cell: this.history[i].number, line: before.length - 1, column: before.at(-1).length };
    }
    return { cell: null, line: 0, column: 0 };
  }

  // Whether a cell's source gives `name` a value.
  wasGiven(name) {
    return this.madeBefore.has(name) || this.history.some(({ source }) => patterns(name)[0].test(source));
  }

  // The last cell that declared `name` or gave it a value, as far as its source shows; null where none does.
  maker(name) {
    for (const pattern of patterns(name)) {
      for (let i = this.history.length - 1; i >= 0; i -= 1) {
        if (pattern.test(this.history[i].source)) return this.history[i].number;
      }
      if (this.madeBefore.has(name)) return this.madeBefore.get(name);
    }
    return null;
  }

  // [{name, scope, value}] of all that cells made: scope is let, const, global, or part (of a built-in object).
  roots(without) {
    const found = [];
    const add = (root) => {
      if (!without.includes(root.name)) found[found.length] = root;
    };
    for (const name of new Set(this.post("Runtime.globalLexicalScopeNames", {}).names)) { // twice where declared again
      let value;
      try {
        value = vm.runInThisContext(name);
      } catch {
        continue; // declared by a cell that failed before it gave it a value
      }
      let scope = "let";
      try {
        vm.runInThisContext(`${name} = ${name}; 0`);
      } catch {
        scope = "const";
      }
      add({ name, scope, value, object: null });
    }
    for (const key of Reflect.ownKeys(globalThis)) {
      const then = baseline.get(key);
      if (then === null && (typeof key === "symbol" || !this.wasGiven(key))) continue;
      const now = Object.getOwnPropertyDescriptor(globalThis, key);
      if (then && Object.is(then.value, now.value) && then.get === now.get && then.set === now.set) continue;
      if (then?.get && then.get !== now.get && this.lazily(key, then, now)) continue;
      if (typeof key === "symbol" && /^(?:undici|node|nodejs)\b/.test(key.description ?? "")) continue;
      const name = typeof key === "symbol" ? `globalThis[${String(key)}]` : key;
      add({ name, scope: "global", key, object: globalThis, value: now.value ?? now.get ?? now.set });
    }
    for (const { object, path, key } of changes()) {
      const now = Object.getOwnPropertyDescriptor(object, key);
      const name = `${path.slice(1).join(".")}.${String(key)}`;
      add({ name, scope: "part", key, object, path, value: now.value ?? now.get ?? now.set });
    }
    return found;
  }

  // Node replaces some of its own getters by their value when they are first used.
  lazily(key, then, now) {
    return now.get === undefined && now.value !== undefined && this.places.has(now.value);
  }

  // Write the state to `path` below the session's folder, or why that failed. Never throws.
  save({ path, limit, without = [] }, busy) {
    let head = null;
    let body = Buffer.alloc(0);
    try {
      if (busy) throw new Error("a cell runs");
      [head, body] = this.bounded(() => {
        try {
          return this.collect(limit, without, false);
        } catch {
          return this.collect(limit, without, true); // an object that is not what its prototype says
        }
      });
    } catch (error) {
      const slow = error?.code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
      const reason = slow ? `it took over ${PATIENCE / 1000} s` : `${error?.message}`;
      head = this.failure(reason);
    }
    try {
      this.write(path, head, body);
    } catch (error) {
      try {
        this.write(path, this.failure(error?.message), Buffer.alloc(0));
      } catch {
        // not even that: the leader waits no longer than it wants to
      }
    } finally {
      this.post("Runtime.releaseObjectGroup", { objectGroup: "state" });
    }
  }

  // `action` for at most `PATIENCE`, then V8 ends it.
  bounded(action) {
    let result;
    const job = () => {
      delete globalThis.__job__;
      result = action();
    };
    Object.defineProperty(globalThis, "__job__", { value: job, configurable: true });
    try {
      new vm.Script("__job__()", { filename: "state" }).runInThisContext({ timeout: PATIENCE });
    } finally {
      delete globalThis.__job__;
    }
    return result;
  }

  head(names, lost) {
    const made = { names, lost, problem: "", versions: { node: process.versions.node } };
    let line = stringify(made);
    for (; Buffer.byteLength(line) > MAX_HEAD; line = stringify(made)) {
      made.names.length >>= 1;
      made.lost.length >>= 1;
    }
    return line;
  }

  // Put together by hand: the guest may have made `toJSON` a trap.
  failure(reason) {
    const problem = stringify(`The variables of JavaScript were not saved: ${`${reason}`.slice(0, 300)}.`);
    return `{"names":[],"lost":[],"problem":${problem},"versions":{"node":"${process.versions.node}"}}`;
  }

  write(path, head, body) {
    const target = `${folder}/${path}`; // `join` would use what the guest may have replaced
    const part = `${target}.part`;
    try {
      mkdirSync(target.slice(0, target.lastIndexOf("/")), 0o700);
    } catch {
      // it is there, or opening says what is wrong
    }
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
    const file = openSync(part, flags, 0o600);
    try {
      writeAll(file, Buffer.from(`${head}\n`));
      writeAll(file, body);
    } catch (error) {
      unlinkSync(part);
      throw error;
    } finally {
      closeSync(file);
    }
    renameSync(part, target);
  }

  collect(limit, without, careful) {
    this.places = anchors();
    const roots = this.roots(without);
    const graph = new Graph(this.places, {
      extras: (value) => this.extras(value), closes: (value, reading) => this.closes(value, reading),
      analyse: (sources) => this.analyse(sources), origin: (value, source) => this.origin(value, source),
      sawStrict: () => this.strict,
    }, careful);
    for (const root of roots) this.enter(graph, root, careful);
    graph.explore();
    const lost = [];
    const lose = (root, reason) => {
      lost[lost.length] = { name: cut(root.name), type: cut(typeName(root.value)), reason: cut(reason), cell: this.maker(root.name) };
    };
    const dead = [];
    for (let id = 0; id < graph.kinds.length; id += 1) if (graph.kinds[id] === "lost") dead[dead.length] = id;
    const doomed = graph.reaching(dead);
    let kept = roots.filter((root) => {
      const bad = root.ids.find((id) => doomed[id]);
      if (bad === undefined) return true;
      const { reason, way } = graph.wayToLoss(bad);
      lose(root, way ? `${reason}, at ${root.name}${way}` : reason);
      return false;
    });
    let body = null;
    for (let most = limit - MAX_HEAD / 8; body === null; most *= 0.8) {
      kept = this.fit(graph, kept, most, careful, (root, size) => {
        lose(root, `over the limit: about ${Math.ceil(size / 1e6)} MB, ${Math.floor(limit / 1e6)} MB are kept`);
      });
      body = this.serialize(graph, kept);
      if (body.length + MAX_HEAD / 8 > limit && kept.length) body = null;
    }
    this.loseHandles(lost);
    this.loseModules(graph, kept, lost);
    const names = kept.map((root) => cut(root.name)).slice(0, MAX_NAMES);
    return [this.head(names, lost.slice(0, MAX_NAMES)), body];
  }

  // Find out what a root holds: `size` where that is plain data alone, `ids` in the graph where it is not.
  enter(graph, root, careful) {
    const values = [root.value];
    if (root.object) {
      const now = Object.getOwnPropertyDescriptor(root.object, root.key);
      values.splice(0, 1, root.key, now.value, now.get, now.set);
    }
    root.size = 0;
    root.ids = [];
    for (const value of values) {
      const size = careful ? -1 : graph.plainSize(value);
      if (size >= 0) {
        root.size += size;
        continue;
      }
      if (typeof value === "symbol") graph.spoken.add(value);
      const id = graph.enter(value);
      if (id >= 0) root.ids[root.ids.length] = id;
      else root.size += typeof value === "string" ? value.length : 9;
    }
  }

  // `roots` without the largest ones, so that what is left is estimated to take at most `most` bytes.
  fit(graph, roots, most, careful, dropped) {
    const weigh = (some) => {
      const marks = graph.reached(some.flatMap((root) => root.ids));
      let sum = some.reduce((total, root) => total + root.name.length + root.size, 0);
      for (let id = 0; id < marks.length; id += 1) if (marks[id] && graph.kinds[id] !== "anchor") sum += graph.sizes[id];
      return sum;
    };
    if (weigh(roots) <= most) return roots;
    if (!careful && roots.some(({ size }) => size > 100_000)) throw new RangeError("what is shared must be counted once");
    const weighed = roots.map((root) => ({ root, size: weigh([root]) })).sort((a, b) => a.size - b.size);
    while (weighed.length && weigh(weighed.map(({ root }) => root)) > most) {
      const { root, size } = weighed.pop();
      dropped(root, size);
    }
    return roots.filter((root) => weighed.some((item) => item.root === root));
  }

  serialize(graph, kept) {
    const { nodes, slot } = graph.encode(graph.reached(kept.flatMap((root) => root.ids)));
    const cells = kept.map(({ name }) => [name, this.maker(name)]).filter(([, cell]) => cell !== null);
    const names = kept.map(({ name, scope, key, object, path, value }) =>
      object ? { name, scope, path, entry: property(object, key, slot) } : { name, scope, value: slot(value) },
    );
    const here = relative(folder, cwd());
    const set = [];
    for (const name of Object.keys(process.env)) {
      if (process.env[name] !== startEnvironment[name]) set.push([name, process.env[name]]);
    }
    const unset = Object.keys(startEnvironment).filter((name) => process.env[name] === undefined);
    const serializer = new v8.Serializer();
    serializer.writeHeader();
    serializer.writeValue({ nodes, names, cells, strict: this.strict, set, unset, here: here.startsWith("..") ? cwd() : here });
    return serializer.releaseBuffer();
  }

  loseHandles(lost) {
    const counts = {};
    for (const kind of getActiveResourcesInfo()) if (HANDLES[kind]) counts[kind] = (counts[kind] ?? 0) + 1;
    for (const [kind, count] of Object.entries(counts)) {
      const reason = count > 1 ? `${count} of them: ${HANDLES[kind]}` : HANDLES[kind];
      lost.push({ name: `(${kind})`, type: kind, reason, cell: null });
    }
  }

  loseModules(graph, kept, lost) {
    const marks = graph.reached(kept.flatMap((root) => root.ids));
    const seen = new Set();
    for (let id = 0; id < marks.length; id += 1) {
      if (!marks[id] || graph.kinds[id] !== "anchor") continue;
      const path = this.places.get(graph.values[id]);
      if (!isOwnModule(path) || seen.has(path[1])) continue;
      seen.add(path[1]);
      lost.push({ name: cut(path[1]), type: "module", reason: "loaded anew: what it had changed within itself", cell: null });
    }
  }

  // The event that answers an order to take over the state in `path`. Never throws.
  async restore({ id, path }) {
    const event = { event: "restored", id, names: [], lost: [], problem: "" };
    try {
      const data = readFileSync(join(folder, path));
      const end = data.indexOf(10);
      const head = parse(data.subarray(0, Math.max(end, 0)).toString());
      if (head.problem) throw new Error(head.problem);
      const saved = `${head.versions?.node}`;
      if (saved.split(".")[0] !== process.versions.node.split(".")[0]) {
        event.problem = `The variables of JavaScript were saved by Node ${cut(saved)} and cannot be read by ${process.versions.node}.`;
        return event;
      }
      event.lost = (Array.isArray(head.lost) ? head.lost : []).slice(0, MAX_NAMES);
      const body = this.bounded(() => {
        const reader = new v8.Deserializer(data.subarray(end + 1));
        reader.readHeader();
        return reader.readValue();
      });
      await this.takeOver(body, event);
    } catch (error) {
      event.problem = `The variables of JavaScript could not be restored: ${`${error?.message}`.slice(0, 300)}`;
      event.names = [];
    }
    event.names = event.names.slice(0, MAX_NAMES);
    event.lost = event.lost.slice(0, MAX_NAMES);
    return event;
  }

  async takeOver({ nodes, names, cells, strict, set, unset, here }, event) {
    for (const name of unset) delete process.env[name];
    for (const [name, value] of set) process.env[name] = value;
    const folderOf = isAbsolute(here) ? here : join(folder, here);
    try {
      chdir(folderOf);
    } catch {
      event.lost.push({ name: "process.cwd()", type: "folder", reason: cut(`${here} is not there`), cell: null });
    }
    const revival = new Revival(nodes, (made, { cell, line, column }) => this.origins.set(made, { cell, line, column }));
    await revival.work();
    this.madeBefore = new Table(cells);
    this.strict = strict;
    const cellOf = new Map(cells);
    const lexical = [];
    for (const { name, scope, path, entry, value } of names) {
      const slots = entry ? [entry[0], entry[2], entry[3]] : [value];
      const bad = slots.find((slot) => typeof slot === "number" && revival.failed.has(slot));
      try {
        if (bad !== undefined) throw new Error(revival.failed.get(bad));
        if (scope === "global") revival.define(globalThis, entry);
        else if (scope === "part") revival.define(await reach(path), entry);
        else if (!IDENTIFIER.test(name) || !/^(let|const)$/.test(scope)) throw new Error("is no name");
        else lexical.push({ name, scope, value: revival.value(value) });
        event.names.push(cut(name));
      } catch (error) {
        event.lost.push({ name: cut(name), type: "", reason: cut(error?.message), cell: cellOf.get(name) ?? null });
      }
    }
    await this.declare(lexical);
  }

  async declare(lexical) {
    if (!lexical.length) return;
    const values = {};
    for (const { name, value } of lexical) Object.defineProperty(values, name, { value });
    const expression = lexical.map(({ name, scope }) => `${scope} ${name} = __hand__.${name};`).join(" ");
    Object.defineProperty(globalThis, "__hand__", { value: values, configurable: true });
    try {
      const { exceptionDetails: failed } = await new Promise((resolve, reject) => {
        this.session.post("Runtime.evaluate", { expression, replMode: true }, (error, reply) => {
          if (error) reject(new Error(error.message));
          else resolve(reply);
        });
      });
      if (failed) throw new Error(failed.exception?.description ?? failed.text);
    } finally {
      delete globalThis.__hand__;
    }
  }
}
