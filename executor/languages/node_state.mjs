// Saves what a session's cells have made to a file, and takes it over from one: the names, the folder, the environment.
//
// A file is one line of JSON, which the leader reads as well, and what V8's serializer made of one object: values that lead
// to nothing special as they are, the rest as the nodes of node_encode.mjs. Only an idle session is saved.

import { Buffer } from "node:buffer";
import { closeSync, constants, mkdirSync, openSync, readFileSync, renameSync, unlinkSync } from "node:fs";
import { isAbsolute, join, relative } from "node:path";
import process from "node:process";
import v8 from "node:v8";
import vm from "node:vm";

import { Table, anchors, baseline, changes, isOwnModule, reach } from "./node_anchors.mjs";
import { encode, property } from "./node_encode.mjs";
import { Graph } from "./node_graph.mjs";
import { folder } from "./node_guest.mjs";
import { writeAll } from "./node_output.mjs";
import { Revival } from "./node_revive.mjs";
import { plainSize, typeName } from "./node_values.mjs";

const PATIENCE = 10_000; // milliseconds that a saving may take, or the reading of a state
const MAX_NAMES = 500;
const MAX_WORDS = 200; // characters of a name, a type, a reason
const MAX_HEAD = 250_000; // bytes of the first line
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

export class State {
  // `questions` is how to ask the inspector and the parser, `cells` what has run.
  constructor(questions, cells) {
    this.questions = questions;
    this.cells = cells;
  }

  // [{name, scope, value}] of all that cells made: scope is let, const, global, or part (of a built-in object).
  roots(without) {
    const found = [];
    const add = (root) => {
      if (!without.includes(root.name)) found[found.length] = root;
    };
    // a name that was declared again is in there twice
    for (const name of new Set(this.questions.post("Runtime.globalLexicalScopeNames", {}).names)) {
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
      if (then === null && (typeof key === "symbol" || !this.cells.wasGiven(key))) continue;
      const now = Object.getOwnPropertyDescriptor(globalThis, key);
      if (then && Object.is(then.value, now.value) && then.get === now.get && then.set === now.set) continue;
      if (then?.get && now.value !== undefined && now.value === process.getBuiltinModule(key)) continue; // as it was
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
      this.questions.post("Runtime.releaseObjectGroup", { objectGroup: "state" });
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
    try {
      unlinkSync(part); // a saving that was cut off left it, or the guest put it there
    } catch {
      // it is not there, or opening says what is wrong
    }
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
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
      extras: (value) => this.questions.extras(value), closes: (value, reading) => this.questions.closes(value, reading),
      analyse: (sources) => this.questions.analyse(sources), origin: (value, source) => this.cells.origin(value, source),
      sawStrict: () => this.cells.strict,
    }, careful);
    for (const root of roots) this.enter(graph, root, careful);
    graph.explore();
    const lost = [];
    const lose = (root, reason) => {
      const [name, type] = [cut(root.name), cut(typeName(root.value))];
      lost[lost.length] = { name, type, reason: cut(reason), cell: this.cells.maker(root.name) };
    };
    const dead = [];
    for (let id = 0; id < graph.kinds.length; id += 1) if (graph.kinds[id] === "lost") dead[dead.length] = id;
    const doomed = graph.edges.reaching(dead);
    let kept = roots.filter((root) => {
      const bad = root.ids.find((id) => doomed[id]);
      if (bad === undefined) return true;
      const { reason, way } = graph.loss(bad);
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
      const size = careful ? -1 : plainSize(value, this.places, graph.tools.extras);
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
      const ids = some.flatMap((root) => root.ids);
      const marks = ids.length ? graph.edges.reached(ids) : [];
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
    const { nodes, slot } = encode(graph, graph.edges.reached(kept.flatMap((root) => root.ids)));
    const cells = kept.map(({ name }) => [name, this.cells.maker(name)]).filter(([, cell]) => cell !== null);
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
    const { strict } = this.cells;
    serializer.writeValue({ nodes, names, cells, strict, set, unset, here: here.startsWith("..") ? cwd() : here });
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
    const marks = graph.edges.reached(kept.flatMap((root) => root.ids));
    const seen = new Set();
    for (let id = 0; id < marks.length; id += 1) {
      if (!marks[id] || graph.kinds[id] !== "anchor") continue;
      const path = this.places.get(graph.values[id]);
      if (!isOwnModule(path) || seen.has(path[1])) continue;
      seen.add(path[1]);
      const reason = "loaded anew: what it had changed within itself";
      lost.push({ name: cut(path[1]), type: "module", reason, cell: null });
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
        const now = process.versions.node;
        event.problem = `The variables of JavaScript were saved by Node ${cut(saved)} and cannot be read by ${now}.`;
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
    const revival = new Revival(nodes, (made, { cell, line, column }) => {
      this.cells.origins.set(made, { cell, line, column });
    });
    await revival.work();
    this.cells.madeBefore = new Table(cells);
    this.cells.strict = strict;
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
        this.questions.session.post("Runtime.evaluate", { expression, replMode: true }, (error, reply) => {
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
