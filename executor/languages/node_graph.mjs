// Everything that a session's names lead to, sorted into plain data, what can be made again, and what is lost.
//
// None of the guest's code runs here: properties are read by their descriptors, proxies are not touched. Plain data goes to
// V8's serializer as it is; what leads to something special becomes a node that names its parts (see node_encode.mjs).

import { types } from "node:util";

import { Bag, Table } from "./node_anchors.mjs";
import { Edges } from "./node_edges.mjs";
import {
  ARRAY, BOXES, BRANDS, DATE, ERRORS, FUNCTION, LIVING, MAP, OBJECT, REGEXP, SET, VIEWS, apply, bufferOf, bytesOf,
  describe, eachEntry, eachItem, getPrototypeOf, isExtensible, isKey, isObject, isOrdinary, keyFor, kindOf, makerName,
  ownKeys, symbolOf, textOf, toText, typeName, viewBuffer,
} from "./node_values.mjs";

const { Array, Number, String, Symbol } = globalThis;

export class Graph {
  // `places` is object to path of what a fresh process has; `tools` are closes(function), analyse(sources),
  // extras(object), origin(function, source) and sawStrict(): what needs the inspector, the parser or the cells. `careful`
  // trusts no prototype to tell what an object is.
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
    this.edges = new Edges();
    this.next = 0;
    this.keyless = new Bag(); // prototypes whose first object was no key: the next ones are not asked
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

  edge(id, value) {
    if (typeof value === "string") this.sizes[id] += value.length;
    else if (typeof value === "symbol") this.spoken.add(value);
    else if (!isObject(value)) {
      this.sizes[id] += 6;
      return;
    }
    const other = this.enter(value);
    if (other < 0) return;
    this.edges.add(id, other);
  }

  explore() {
    for (; this.next < this.values.length; this.next += 1) this.expand(this.next, this.values[this.next]);
    this.judge();
    this.edges.close(this.values.length);
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
    const proto = getPrototypeOf(value);
    if (!this.keyless.has(proto)) {
      if (isKey(value)) {
        this.lose(id, "key");
        return;
      }
      this.keyless.add(proto);
    }
    const owner = describe(value, "constructor")?.value;
    const ofClass = typeof owner === "function" && !types.isProxy(owner) && describe(owner, "prototype")?.value === value;
    if (!ofClass && !this.places.has(owner)) {
      const [base, path] = this.base(value);
      if (path && base !== OBJECT && !(path[0] === "nameless" && path[2] === "prototype" && path.length === 3)) {
        const last = path[path.length - 2];
        const told = path[0] === "global" || path[0] === "living" || path.length > 3;
        const name = told && typeof last === "string" ? last : makerName(base);
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
        this.edges.add(id, other);
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
        this.lose(id, `${reading.kind === "class" ? "class" : "function"} that closes over other variables`);
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
      this.edges.add(member, id);
      rest.delete(member);
      if (this.ids.has(key)) this.spoken.add(key);
    }
    // a prototype comes with its class, too
    this.edges.add(this.ids.get(prototype), id);
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

  // Why the value `id` is lost: the reason, and the names that lead from it to what has that reason.
  loss(id) {
    const steps = this.edges.way(id, (at) => this.kinds[at] === "lost");
    let names = "";
    for (let i = 1; i < steps.length; i += 1) names += this.label(steps[i - 1], steps[i]);
    return { reason: this.reasons[steps[steps.length - 1]], way: names };
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
}
