// Makes again what node_encode.mjs has written: first every object, then what each of them holds.

import vm from "node:vm";

import { reach } from "./node_anchors.mjs";

const { Object, Reflect } = globalThis;
const EVALUATION = 2_000; // milliseconds that one source may take

// What the node's other nodes are, by number.
function* references(node) {
  const slots = [node.proto, node.of, node.key, node.inner, ...(node.items ?? [])];
  for (const [key, , first, second] of node.props ?? []) slots.push(key, first, second);
  for (const slot of slots) if (typeof slot === "number") yield slot;
}

function run(source, { cell, line, column }) {
  const place = { filename: `cell-${cell}`, lineOffset: line, columnOffset: column };
  return new vm.Script(source, cell === null ? { filename: "restored" } : place).runInThisContext({ timeout: EVALUATION });
}

export class Revival {
  // `nodes` as `encode` made them; `made(function, node)` hears of each function with a source.
  constructor(nodes, made) {
    this.nodes = nodes;
    this.made = made;
    this.objects = [];
    this.failed = new Map(); // number to reason
    this.under = new Set();
  }

  // Everything that can be made. What failed, and what cannot be without it, is in `failed`.
  async work() {
    for (const [i, node] of this.nodes.entries()) {
      if (node.kind !== "anchor") continue;
      try {
        this.objects[i] = await reach(node.path);
      } catch (error) {
        const what = node.path[0] === "global" ? "part of the language" : `module ${node.path[1]}`;
        this.failed.set(i, `needs ${what}, which cannot be loaded (${`${error?.code ?? error?.message}`.slice(0, 60)})`);
      }
    }
    for (const i of this.nodes.keys()) this.make(i);
    this.spread();
    for (const [i, node] of this.nodes.entries()) {
      if (!this.failed.has(i)) this.attempt(i, () => this.fill(this.objects[i], node));
    }
    this.spread();
    for (const [i, node] of this.nodes.entries()) {
      if (node.open === false && !this.failed.has(i)) Object.preventExtensions(this.objects[i]);
    }
  }

  attempt(i, action) {
    try {
      action();
    } catch (error) {
      this.failed.set(i, `cannot be made again (${`${error?.message}`.slice(0, 80)})`);
    }
  }

  spread() {
    for (let again = this.failed.size > 0; again; ) {
      again = false;
      for (const [i, node] of this.nodes.entries()) {
        if (this.failed.has(i)) continue;
        for (const other of references(node)) {
          if (this.failed.has(other)) {
            this.failed.set(i, this.failed.get(other));
            again = true;
            break;
          }
        }
      }
    }
  }

  value(slot) {
    return typeof slot === "number" ? this.objects[slot] : slot[0];
  }

  make(i) {
    if (i in this.objects || this.failed.has(i)) return this.objects[i];
    if (this.under.has(i)) throw new Error("it is part of itself");
    this.under.add(i);
    this.attempt(i, () => {
      this.objects[i] = this.create(this.nodes[i]);
    });
    this.under.delete(i);
    return this.objects[i];
  }

  create(node) {
    switch (node.kind) {
      case "symbol":
        return node.key === undefined ? Symbol(node.text) : Symbol.for(node.key);
      case "function":
        return this.createFunction(node);
      case "prototype":
        return this.make(node.of).prototype;
      case "member": {
        const maker = this.make(node.of);
        const key = typeof node.key === "number" ? this.make(node.key) : node.key[0];
        return Object.getOwnPropertyDescriptor(node.isStatic ? maker : maker.prototype, key)[node.part];
      }
      case "array":
        return new Array(node.length);
      case "map":
        return new Map();
      case "set":
        return new Set();
      case "date":
        return new Date(node.time);
      case "regexp":
        return new RegExp(node.source, node.flags);
      case "error": {
        const error = new Error();
        error.stack = node.stack;
        return error;
      }
      case "box":
        return Object(typeof node.inner === "number" ? this.make(node.inner) : node.inner[0]);
      case "view": {
        if (node.type === "DataView") return new DataView(node.buffer, node.offset, node.bytes);
        const View = globalThis[node.type];
        return new View(node.buffer, node.offset, node.bytes / View.BYTES_PER_ELEMENT);
      }
      default:
        return {};
    }
  }

  createFunction(node) {
    const method = node.form === "method" || node.form === "accessor";
    const strict = node.strict ? '"use strict";' : "";
    const before = `${strict}${method ? "({" : "("}`;
    const source = `${before}${node.source}\n${method ? "})" : ")"}`;
    const place = { cell: node.cell, line: node.line, column: (node.column ?? 0) - before.length };
    const parent = node.parent && this.make(node.proto);
    const found = node.parent ? this.below(node.parent, parent, () => run(source, place)) : run(source, place);
    let made = found;
    if (method) {
      const { value, get, set } = Object.getOwnPropertyDescriptor(found, Reflect.ownKeys(found)[0]);
      made = value ?? get ?? set;
    }
    if (typeof made !== "function") throw new Error("its source is no function");
    this.made(made, node);
    return made;
  }

  // `action` while the chain of names means `parent`: nothing has a name of the guest's yet.
  below(names, parent, action) {
    const [first, ...others] = names;
    const before = Object.getOwnPropertyDescriptor(globalThis, first);
    const value = others.reduceRight((inner, name) => ({ [name]: inner }), parent);
    Object.defineProperty(globalThis, first, { value, configurable: true });
    try {
      return action();
    } finally {
      delete globalThis[first];
      if (before) Object.defineProperty(globalThis, first, before);
    }
  }

  fill(object, node) {
    if (node.kind === "anchor" || node.kind === "symbol") return;
    const items = (node.items ?? []).map((slot) => this.value(slot));
    if (node.kind === "set") for (const item of items) Set.prototype.add.call(object, item);
    for (let i = 0; node.kind === "map" && i < items.length; i += 2) Map.prototype.set.call(object, items[i], items[i + 1]);
    if (node.proto !== undefined) Object.setPrototypeOf(object, this.value(node.proto));
    if (node.kind === "function" || node.kind === "prototype" || node.kind === "member") {
      const kept = new Set(node.props.map(([key]) => (typeof key === "number" ? this.objects[key] : key)));
      for (const key of Reflect.ownKeys(object)) if (!kept.has(key)) Reflect.deleteProperty(object, key);
    }
    for (const entry of node.props) this.define(object, entry);
  }

  // One property as node_encode.mjs wrote it.
  define(object, [name, flags, first, second]) {
    const key = typeof name === "number" ? this.objects[name] : name;
    const shared = { enumerable: Boolean(flags & 2), configurable: Boolean(flags & 4) };
    const kept = flags & 8
      ? { ...shared, get: this.value(first), set: this.value(second) }
      : { ...shared, writable: Boolean(flags & 1), value: this.value(first) };
    Object.defineProperty(object, key, kept);
  }
}
