// Everything that a session's names lead to, sorted into plain data, what can be made again, and what is lost.
//
// None of the guest's code runs here: properties are read by their descriptors, proxies are not touched. Plain data goes to
// V8's serializer as it is; what leads to something special becomes a node that names its parts (see node_revive.mjs).

import { types } from "node:util";

import { Bag, Table } from "./node_anchors.mjs";

const { Array, Boolean, BigInt, Date, Error, Map, Number, Object, Reflect, RegExp, Set, String, Symbol } = globalThis;
const { apply, getPrototypeOf, isExtensible, ownKeys } = Reflect;
const describe = Reflect.getOwnPropertyDescriptor;
const { forEach: eachEntry } = Map.prototype;
const { forEach: eachItem } = Set.prototype;
const { getTime } = Date.prototype;
const toText = Function.prototype.toString;
const sourceOf = describe(RegExp.prototype, "source").get;
const flagsOf = describe(RegExp.prototype, "flags").get;
const lengthOf = describe(getPrototypeOf(Uint8Array.prototype), "byteLength").get;
const bufferOf = describe(getPrototypeOf(Uint8Array.prototype), "buffer").get;
const offsetOf = describe(getPrototypeOf(Uint8Array.prototype), "byteOffset").get;
const kindOf = describe(getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag).get;
const [viewLength, viewBuffer] = ["byteLength", "buffer"].map((key) => describe(DataView.prototype, key).get);
const viewOffset = describe(DataView.prototype, "byteOffset").get;
const bytesOf = describe(ArrayBuffer.prototype, "byteLength").get;
const symbolOf = Symbol.prototype.valueOf;
const { keyFor } = Symbol;
const BOXES = [Number, String, Boolean, BigInt];
const prototypes = [Object, Array, Map, Set, Date, RegExp].map((kind) => kind.prototype);
const [OBJECT, ARRAY, MAP, SET, DATE, REGEXP] = prototypes;
const FUNCTION = Function.prototype;
const errorStack = describe(new Error("stack"), "stack").get;
const ERRORS = new Bag();
for (const kind of [Error, RangeError, TypeError, SyntaxError, EvalError, ReferenceError, URIError, AggregateError]) {
  ERRORS.add(kind.prototype);
}
const VIEWS = new Table();
for (const kind of [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float32Array,
  Float64Array, BigInt64Array, BigUint64Array, globalThis.Float16Array]) {
  if (kind) VIEWS.set(kind.name, kind.prototype);
}

// Kinds of objects that live in their process, as people call them.
const LIVING = {
  __proto__: null,
  Timeout: "timer", Immediate: "timer", Socket: "open socket", TLSSocket: "open socket", Server: "server",
  ChildProcess: "running process", ReadStream: "open file", WriteStream: "open file", Worker: "thread",
  WeakRef: "weak reference", FileHandle: "open file", AsyncFunction: "function", Hash: "hash under way",
  EventEmitter: "object with listeners", URL: "URL object: keep its text", AbortController: "abort signal",
};

// Objects with a state that cannot be read, by the test that tells them.
const BRANDS = [
  types.isPromise, "promise", types.isSharedArrayBuffer, "shared memory", types.isWeakMap, "weak map",
  types.isWeakSet, "weak set", types.isGeneratorObject, "generator", types.isExternal, "native object",
  types.isMapIterator, "iterator", types.isSetIterator, "iterator", types.isArgumentsObject, "arguments of a call",
  types.isModuleNamespaceObject, "module that cannot be named", types.isKeyObject, "key", types.isCryptoKey, "key",
];

const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";
const textOf = (key) => (typeof key === "symbol" ? "[symbol]" : key);

const isOrdinary = (found) => !found.get && !found.set && found.writable && found.enumerable && found.configurable;

// The type of a value as an error message would say it; nothing of the guest's is called.
export function typeName(value) {
  if (!isObject(value)) return value === null ? "null" : typeof value;
  if (types.isProxy(value)) return "Proxy";
  if (typeof value === "function") {
    return /^class\b/.test(apply(toText, value, [])) ? "class" : "function";
  }
  return makerName(getPrototypeOf(value));
}

// The name of the constructor that `start` or a prototype above it belongs to.
function makerName(start) {
  for (let proto = start, steps = 0; proto && steps < 100 && !types.isProxy(proto); steps += 1) {
    const maker = describe(proto, "constructor")?.value;
    const name = typeof maker === "function" && !types.isProxy(maker) ? describe(maker, "name")?.value : null;
    if (typeof name === "string" && name) return name.slice(0, 100);
    proto = getPrototypeOf(proto);
  }
  return "object";
}

export class Graph {
  // `places` is object to path of what a fresh process has; `tools` are closes(function), analyse(sources),
  // extras(object) and the like: what needs the inspector or the parser. `careful` trusts no prototype to tell what an object is.
  constructor(places, tools, careful) {
    this.careful = careful;
    this.places = places;
    this.tools = tools;
    this.ids = new Table();
    this.values = [];
    this.kinds = [];
    this.reasons = [];
    this.sizes = [];
    this.special = [];
    this.from = [];
    this.to = [];
    this.next = 0;
    this.spoken = new Bag(); // symbols that are somebody's value, not just a key
    this.readings = new Table(); // function to what the parser says of its source
  }

  // The number of `value`, or -1 for what needs none. All that it leads to is entered with `explore`.
  enter(value) {
    if (!isObject(value) && typeof value !== "symbol") return -1;
    const known = this.ids.get(value);
    if (known !== undefined) return known;
    const id = this.values.length;
    this.ids.set(value, id);
    this.values[id] = value;
    this.kinds[id] = "";
    this.reasons[id] = "";
    this.sizes[id] = 16;
    this.special[id] = false;
    return id;
  }

  // About how many bytes `start` takes if all that it leads to is plain data, else -1; nothing is entered. It is three
  // times as quick as entering. Every 64th object is marked, and meeting a mark again ends it: something is shared.
  plainSize(start) {
    const stack = [start];
    const marks = new Bag();
    let size = 0;
    for (let count = 1; stack.length; ) {
      const value = stack.pop();
      if (!isObject(value)) {
        if (typeof value === "symbol") return -1;
        size += typeof value === "string" ? value.length + 4 : 6;
        continue;
      }
      if (typeof value === "function" || types.isProxy(value) || this.places.has(value) || marks.has(value)) return -1;
      if (count % 64 === 0) marks.add(value);
      count += 1;
      size += 4;
      let proto = OBJECT;
      let keys = null;
      if (Array.isArray(value)) {
        proto = ARRAY;
        if (value.length >= 1000) {
          if (this.tools.extras(value).length || value.length > 10_000_000) return -1;
          for (let i = 0; i < value.length; i += 1) {
            const found = describe(value, i);
            if (!found) continue;
            if (!isOrdinary(found)) return -1;
            if (typeof found.value === "number") size += 9;
            else stack[stack.length] = found.value;
          }
          keys = [];
        }
      } else if (types.isTypedArray(value)) {
        proto = VIEWS.get(apply(kindOf, value, []));
        const buffer = apply(bufferOf, value, []);
        if (this.tools.extras(value).length) return -1;
        keys = [];
        stack[stack.length] = buffer;
      } else if (types.isArrayBuffer(value)) {
        if (value.detached) return -1;
        proto = ArrayBuffer.prototype;
        size += apply(bytesOf, value, []);
      } else if (types.isArgumentsObject(value)) return -1;
      if (getPrototypeOf(value) !== proto || !isExtensible(value)) return -1;
      keys ??= ownKeys(value);
      for (let i = 0; i < keys.length; i += 1) {
        const found = describe(value, keys[i]);
        if (proto === ARRAY && keys[i] === "length" && found.writable) continue;
        if (typeof keys[i] === "symbol" || !isOrdinary(found)) return -1;
        size += keys[i].length + 2;
        stack[stack.length] = found.value;
      }
    }
    return size;
  }

  edge(id, value) {
    if (typeof value === "string") this.sizes[id] += value.length;
    else if (typeof value === "symbol") this.spoken.add(value);
    else if (!isObject(value)) {
      this.sizes[id] += 6;
      return;
    }
    const other = this.enter(value);
    if (other < 0) return;
    this.from[this.from.length] = id;
    this.to[this.to.length] = other;
  }

  explore() {
    for (; this.next < this.values.length; this.next += 1) this.expand(this.next, this.values[this.next]);
    this.judge();
  }

  lose(id, reason) {
    this.kinds[id] = "lost";
    this.reasons[id] ||= reason;
  }

  expand(id, value) {
    const place = this.places.get(value);
    if (place) {
      this.kinds[id] = "anchor";
      this.special[id] = true;
    } else if (typeof value === "symbol") {
      this.kinds[id] = "symbol";
      this.special[id] = true;
    } else if (types.isProxy(value)) this.lose(id, "proxy");
    else if (typeof value === "function") this.expandFunction(id, value);
    else if (Array.isArray(value)) this.expandArray(id, value);
    else if (!this.careful && getPrototypeOf(value) === OBJECT && !types.isArgumentsObject(value)) {
      this.common(id, value, "object", OBJECT); // most are; what only looks so makes the serializer throw
    } else if (types.isMap(value)) this.expandMap(id, value);
    else if (types.isSet(value)) {
      this.common(id, value, "set", SET);
      apply(eachItem, value, [(item) => this.edge(id, item)]);
    } else if (types.isDate(value)) this.common(id, value, "date", DATE);
    else if (types.isRegExp(value)) {
      this.common(id, value, "regexp", REGEXP);
      this.special[id] = true; // the serializer forgets lastIndex
    } else if (types.isNativeError(value)) this.expandError(id, value);
    else if (types.isBoxedPrimitive(value)) this.expandBox(id, value);
    else if (types.isArrayBuffer(value)) this.expandBuffer(id, value);
    else if (types.isArrayBufferView(value)) this.expandView(id, value);
    else this.expandObject(id, value);
  }

  expandObject(id, value) {
    for (let i = 0; i < BRANDS.length; i += 2) {
      if (BRANDS[i](value)) {
        this.lose(id, BRANDS[i + 1]);
        return;
      }
    }
    const owner = describe(value, "constructor")?.value;
    const ofClass = typeof owner === "function" && !types.isProxy(owner) && describe(owner, "prototype")?.value === value;
    if (!ofClass && !this.places.has(owner)) {
      const [base, path] = this.base(value);
      if (path && base !== OBJECT && !(path[0] === "nameless" && path[2] === "prototype" && path.length === 3)) {
        const last = path[path.length - 2];
        const name = typeof last === "string" && (path[0] === "global" || path.length > 3 || path[0] === "living") ? last : makerName(base);
        const from = path[0] === "require" || path[0] === "import" ? ` of module ${path[1]}` : "";
        this.lose(id, LIVING[name] ?? `live object: ${name}${from}`);
        return;
      }
    }
    this.common(id, value, "object", OBJECT);
  }

  // The first prototype that a fresh process has as well, and its path.
  base(value) {
    let proto = getPrototypeOf(value);
    for (let steps = 0; proto && steps < 1000 && !types.isProxy(proto); steps += 1) {
      const path = this.places.get(proto);
      if (path) return [proto, path];
      proto = getPrototypeOf(proto);
    }
    return [null, null];
  }

  common(id, value, kind, proto, skip) {
    this.kinds[id] = kind;
    this.properties(id, value, ownKeys(value), skip);
    this.ancestry(id, value, proto);
  }

  ancestry(id, value, proto) {
    if (!isExtensible(value)) this.special[id] = true;
    const found = getPrototypeOf(value);
    if (found === proto) return;
    this.special[id] = true;
    if (found) this.edge(id, found);
  }

  properties(id, value, keys, skip) {
    for (let i = 0; i < keys.length; i += 1) {
      const key = keys[i];
      if (skip?.(key)) continue;
      if (typeof key === "symbol") {
        this.special[id] = true;
        const other = this.enter(key);
        this.from[this.from.length] = id;
        this.to[this.to.length] = other;
      } else this.sizes[id] += key.length + 2;
      const found = describe(value, key);
      if (found.get || found.set) {
        this.special[id] = true;
        this.edge(id, found.get);
        this.edge(id, found.set);
      } else {
        if (!(found.writable && found.enumerable && found.configurable)) this.special[id] = true;
        this.edge(id, found.value);
      }
    }
  }

  expandArray(id, value) {
    this.kinds[id] = "array";
    const { length } = value;
    let extras;
    if (length < 1000) extras = ownKeys(value);
    else {
      extras = this.tools.extras(value);
      let present = 0;
      for (let i = 0; i < length; i += 1) {
        const found = describe(value, i);
        if (!found) continue;
        present += 1;
        if (isOrdinary(found)) this.edge(id, found.value);
        else {
          this.special[id] = true;
          this.edge(id, found.get);
          this.edge(id, found.set);
          this.edge(id, found.value);
        }
        if (i === 10_000_000) return this.lose(id, "array of more than ten million places");
      }
      this.sizes[id] += present;
    }
    if (!describe(value, "length").writable) this.special[id] = true;
    this.properties(id, value, extras, (key) => key === "length");
    this.ancestry(id, value, ARRAY);
  }

  expandMap(id, value) {
    this.common(id, value, "map", MAP);
    apply(eachEntry, value, [(item, key) => {
      this.edge(id, key);
      this.edge(id, item);
    }]);
    if (ownKeys(value).length) this.special[id] = true;
  }

  expandError(id, value) {
    const [base] = this.base(value);
    if (!ERRORS.has(base)) return this.lose(id, `live object: ${typeName(value)}`);
    this.common(id, value, "error", null, (key) => key === "stack");
    this.special[id] = true;
  }

  expandBox(id, value) {
    if (types.isSymbolObject(value)) {
      this.edge(id, apply(symbolOf, value, []));
      return this.common(id, value, "box", Symbol.prototype) ?? (this.special[id] = true);
    }
    const tests = [types.isNumberObject, types.isStringObject, types.isBooleanObject, types.isBigIntObject];
    let which = 0;
    while (which < 3 && !tests[which](value)) which += 1;
    const text = which === 1 ? apply(String.prototype.valueOf, value, []) : "";
    const own = (key) => which === 1 && (key === "length" || (typeof key === "string" && Number(key) < text.length));
    this.sizes[id] += text.length;
    this.common(id, value, "box", BOXES[which].prototype, own);
    if (ownKeys(value).length > (which === 1 ? text.length + 1 : 0)) this.special[id] = true;
  }

  expandBuffer(id, value) {
    this.kinds[id] = "buffer";
    this.sizes[id] += apply(bytesOf, value, []);
    if (ownKeys(value).length || getPrototypeOf(value) !== ArrayBuffer.prototype || !isExtensible(value)) {
      this.lose(id, "buffer with properties of its own");
    } else if (value.detached) this.lose(id, "buffer that was handed to a thread");
  }

  expandView(id, value) {
    this.kinds[id] = "view";
    const isData = types.isDataView(value);
    const buffer = apply(isData ? viewBuffer : bufferOf, value, []);
    this.edge(id, buffer);
    const name = isData ? "DataView" : apply(kindOf, value, []);
    const extras = isData ? ownKeys(value) : this.tools.extras(value);
    if (extras.length) this.special[id] = true;
    this.properties(id, value, extras);
    this.ancestry(id, value, isData ? DataView.prototype : VIEWS.get(name));
  }

  expandFunction(id, value) {
    this.kinds[id] = "function";
    this.special[id] = true;
    this.sizes[id] += apply(toText, value, []).length;
    this.properties(id, value, ownKeys(value), (key) => key === "caller" || key === "arguments");
    const proto = getPrototypeOf(value);
    if (proto && proto !== FUNCTION) this.edge(id, proto);
  }

  // What can only be said when everything is known.
  judge() {
    const functions = [];
    for (let id = 0; id < this.values.length; id += 1) {
      const value = this.values[id];
      if (this.kinds[id] === "function") functions[functions.length] = id;
      else if (this.kinds[id] === "symbol" && keyFor(value) === undefined && !this.spoken.has(value)) {
        this.lose(id, "symbol that nobody holds");
      }
    }
    const sources = [];
    for (let i = 0; i < functions.length; i += 1) sources[i] = apply(toText, this.values[functions[i]], []);
    const readings = sources.length ? this.tools.analyse(sources) : [];
    const rest = new Bag();
    for (let i = 0; i < functions.length; i += 1) {
      this.readings.set(this.values[functions[i]], { ...readings[i], source: sources[i] });
      rest.add(functions[i]);
    }
    for (let i = 0; i < functions.length; i += 1) {
      if (readings[i].kind === "class") this.judgeMembers(functions[i], readings[i], rest);
    }
    rest.forEach((id) => {
      const reading = this.readings.get(this.values[id]);
      if (reading.problem) this.lose(id, reading.problem);
      else if (this.tools.closes(this.values[id], reading)) {
        this.lose(id, reading.kind === "class" ? "class that closes over other variables" : "function that closes over other variables");
      } else if (reading.kind !== "class" && !reading.bare && this.tools.sawStrict()) {
        this.lose(id, "function of a session that uses strict mode"); // nobody can tell whether it is strict
      }
    });
    for (let id = 0; id < this.values.length; id += 1) {
      const kind = this.kinds[id];
      if (kind === "lost" || kind === "anchor" || kind === "symbol" || kind === "function" || !this.special[id]) continue;
      if (this.hides(this.values[id])) this.lose(id, "object with private fields");
    }
  }

  // Methods that come with their class: the same text under the same name.
  judgeMembers(id, reading, rest) {
    const maker = this.values[id];
    const prototype = describe(maker, "prototype").value;
    this.kinds[this.ids.get(prototype)] = "prototype";
    for (let i = 0; i < reading.members.length; i += 1) {
      const [name, isStatic, kind, text] = reading.members[i];
      const key = name.startsWith("@@") ? Symbol[name.slice(2)] : name;
      const found = describe(isStatic ? maker : prototype, key);
      const part = kind === "method" ? "value" : kind;
      const member = this.ids.get(found?.[part]);
      if (member === undefined || this.kinds[member] !== "function" || !rest.has(member)) continue;
      if (!text.endsWith(this.readings.get(found[part]).source)) continue;
      this.kinds[member] = "member";
      this.readings.set(found[part], { of: id, isStatic, key, part });
      this.from[this.from.length] = member;
      this.to[this.to.length] = id;
      rest.delete(member);
      if (this.ids.has(key)) this.spoken.add(key);
    }
    // a prototype comes with its class, too
    this.from[this.from.length] = this.ids.get(prototype);
    this.to[this.to.length] = id;
    this.special[this.ids.get(prototype)] = true;
  }

  hides(value) {
    let proto = getPrototypeOf(value);
    for (let steps = 0; proto && steps < 1000 && !types.isProxy(proto); steps += 1) {
      const maker = describe(proto, "constructor")?.value;
      if (typeof maker === "function" && this.readings.get(maker)?.hidden && maker.prototype === proto) return true;
      proto = getPrototypeOf(proto);
    }
    return false;
  }

  // Numbers of all from which one of `ids` can be reached, themselves among them.
  reaching(ids) {
    this.backward ??= index(this.to, this.from, this.values.length);
    return flood(ids, this.backward, this.values.length);
  }

  // Numbers of all that can be reached from `ids`.
  reached(ids) {
    this.forward ??= index(this.from, this.to, this.values.length);
    return flood(ids, this.forward, this.values.length);
  }

  // A way from `id` to something lost: the reason, and the names that lead there.
  wayToLoss(id) {
    this.forward ??= index(this.from, this.to, this.values.length);
    const before = new Int32Array(this.values.length).fill(-1);
    const queue = [id];
    before[id] = id;
    for (let i = 0; i < queue.length; i += 1) {
      const at = queue[i];
      if (this.kinds[at] === "lost") {
        let way = "";
        for (let step = at; step !== id; step = before[step]) way = `${this.label(before[step], step)}${way}`;
        return { reason: this.reasons[at], way };
      }
      const { starts, ends } = this.forward;
      for (let j = starts[at]; j < starts[at + 1]; j += 1) {
        if (before[ends[j]] < 0) {
          before[ends[j]] = at;
          queue[queue.length] = ends[j];
        }
      }
    }
    return { reason: "", way: "" };
  }

  label(id, child) {
    const [holder, value] = [this.values[id], this.values[child]];
    const keys = ownKeys(holder);
    for (let i = 0; i < keys.length && i < 10_000; i += 1) {
      const found = describe(holder, keys[i]);
      if (found.value === value || found.get === value || found.set === value) return `.${textOf(keys[i])}`;
    }
    return getPrototypeOf(holder) === value ? ".prototype" : "";
  }

  // The special ones among `kept` (a Uint8Array of marks) as nodes, and a function that names a value's place in them.
  encode(kept) {
    const seeds = [];
    for (let id = 0; id < this.values.length; id += 1) if (kept[id] && this.special[id]) seeds[seeds.length] = id;
    const marks = this.reaching(seeds);
    const numbers = new Int32Array(this.values.length).fill(-1);
    let count = 0;
    for (let id = 0; id < marks.length; id += 1) {
      if (kept[id] && marks[id]) {
        numbers[id] = count;
        count += 1;
      }
    }
    const slot = (value) => {
      const number = isObject(value) || typeof value === "symbol" ? (numbers[this.ids.get(value)] ?? -1) : -1;
      return number < 0 ? [value] : number;
    };
    // undefined for the prototype that such an object has anyway
    slot.proto = (value) => (value === null ? [null] : numbers[this.ids.get(value)] >= 0 ? slot(value) : undefined);
    const nodes = [];
    for (let id = 0; id < marks.length; id += 1) if (numbers[id] >= 0) nodes[nodes.length] = this.node(id, slot);
    return { nodes, slot };
  }

  node(id, slot) {
    const value = this.values[id];
    const kind = this.kinds[id];
    if (kind === "anchor") return { kind, path: this.places.get(value) };
    if (kind === "symbol") return { kind, key: keyFor(value), text: value.description };
    const node = { kind, proto: slot.proto(getPrototypeOf(value)), open: isExtensible(value), props: [] };
    let skip = () => false;
    let keys = null;
    if (kind === "function") {
      const reading = this.readings.get(value);
      Object.assign(node, this.tools.origin(value, reading.source), {
        source: reading.source,
        form: reading.kind,
        strict: Boolean(reading.bare) && !describe(value, "caller"),
        parent: reading.parent,
      });
      skip = (key) => key === "caller" || key === "arguments";
    } else if (kind === "member") {
      const { of, isStatic, key, part } = this.readings.get(value);
      Object.assign(node, { of: slot(this.values[of]), isStatic, key: slot(key), part });
    } else if (kind === "prototype") node.of = slot(describe(value, "constructor").value);
    else if (kind === "array") {
      node.length = value.length;
      keys = node.length < 1000 ? null : this.indices(value);
    } else if (kind === "map" || kind === "set") {
      node.items = [];
      const add = (item) => {
        node.items[node.items.length] = slot(item);
      };
      if (kind === "set") apply(eachItem, value, [add]);
      else {
        apply(eachEntry, value, [(item, key) => {
          add(key);
          add(item);
        }]);
      }
    } else if (kind === "date") node.time = apply(getTime, value, []);
    else if (kind === "regexp") Object.assign(node, { source: apply(sourceOf, value, []), flags: apply(flagsOf, value, []) });
    else if (kind === "error") {
      const own = describe(value, "stack");
      if (own) node.stack = own.get === errorStack ? apply(errorStack, value, []) : own.value;
      if (typeof node.stack !== "string") node.stack = "";
      skip = (key) => key === "stack";
    } else if (kind === "box") {
      const inner = Object.getPrototypeOf(value);
      node.inner = types.isSymbolObject(value) ? slot(apply(symbolOf, value, [])) : [unbox(value)];
      if (inner && types.isStringObject(value)) {
        const text = node.inner[0];
        skip = (key) => key === "length" || (typeof key === "string" && Number(key) < text.length);
      }
    } else if (kind === "view") {
      const isData = types.isDataView(value);
      node.type = isData ? "DataView" : apply(kindOf, value, []);
      node.buffer = apply(isData ? viewBuffer : bufferOf, value, []);
      node.offset = apply(isData ? viewOffset : offsetOf, value, []);
      node.bytes = apply(isData ? viewLength : lengthOf, value, []);
      keys = this.tools.extras(value);
    }
    keys ??= ownKeys(value);
    for (let i = 0; i < keys.length; i += 1) {
      if (!skip(keys[i])) node.props[node.props.length] = property(value, keys[i], slot);
    }
    return node;
  }

  indices(value) {
    const found = [];
    for (let i = 0; i < value.length; i += 1) if (describe(value, i)) found[found.length] = `${i}`;
    const extras = this.tools.extras(value);
    for (let i = 0; i < extras.length; i += 1) found[found.length] = extras[i];
    if (!describe(value, "length").writable) found[found.length] = "length";
    return found;
  }
}

function unbox(value) {
  if (types.isNumberObject(value)) return apply(Number.prototype.valueOf, value, []);
  if (types.isStringObject(value)) return apply(String.prototype.valueOf, value, []);
  if (types.isBooleanObject(value)) return apply(Boolean.prototype.valueOf, value, []);
  return apply(BigInt.prototype.valueOf, value, []);
}

// [key, flags, value] or, with flag 8, [key, flags, getter, setter]; flags: 1 writable, 2 enumerable, 4 configurable.
export function property(object, key, slot) {
  const found = describe(object, key);
  const flags = (found.writable ? 1 : 0) + (found.enumerable ? 2 : 0) + (found.configurable ? 4 : 0);
  const name = typeof key === "symbol" ? slot(key) : key;
  if (found.get || found.set) return [name, flags + 8, slot(found.get), slot(found.set)];
  return [name, flags, slot(found.value)];
}

// Where the ends of each start lie: ends[starts[n]] to ends[starts[n + 1]].
function index(from, to, count) {
  const starts = new Int32Array(count + 1);
  for (let i = 0; i < from.length; i += 1) starts[from[i] + 1] += 1;
  for (let i = 0; i < count; i += 1) starts[i + 1] += starts[i];
  const at = starts.slice();
  const ends = new Int32Array(from.length);
  for (let i = 0; i < from.length; i += 1) {
    ends[at[from[i]]] = to[i];
    at[from[i]] += 1;
  }
  return { starts, ends };
}

function flood(ids, { starts, ends }, count) {
  const marks = new Uint8Array(count);
  const stack = new Int32Array(count + 1);
  let top = 0;
  for (let i = 0; i < ids.length; i += 1) {
    if (ids[i] >= 0 && !marks[ids[i]]) {
      marks[ids[i]] = 1;
      stack[top] = ids[i];
      top += 1;
    }
  }
  while (top) {
    top -= 1;
    const at = stack[top];
    for (let j = starts[at]; j < starts[at + 1]; j += 1) {
      if (!marks[ends[j]]) {
        marks[ends[j]] = 1;
        stack[top] = ends[j];
        top += 1;
      }
    }
  }
  return marks;
}
