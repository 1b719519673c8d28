// Writes the special part of a graph as nodes, each naming its parts by number; node_revive.mjs makes it again.

import { types } from "node:util";

import {
  apply, bufferOf, describe, eachEntry, eachItem, errorStack, flagsOf, getPrototypeOf, getTime, isExtensible,
  isObject, keyFor, kindOf, lengthOf, offsetOf, ownKeys, sourceOf, symbolOf, unbox, viewBuffer, viewLength,
  viewOffset,
} from "./node_values.mjs";

const { Boolean, Number, Object } = globalThis;

// The special ones among `kept` (a Uint8Array of marks) as nodes, and a function that names a value's place in them.
export function encode(graph, kept) {
  const seeds = [];
  for (let id = 0; id < graph.values.length; id += 1) if (kept[id] && graph.special[id]) seeds[seeds.length] = id;
  const marks = graph.edges.reaching(seeds);
  const numbers = new Int32Array(graph.values.length).fill(-1);
  let count = 0;
  for (let id = 0; id < marks.length; id += 1) {
    if (kept[id] && marks[id]) {
      numbers[id] = count;
      count += 1;
    }
  }
  const slot = (value) => {
    const number = isObject(value) || typeof value === "symbol" ? (numbers[graph.ids.get(value)] ?? -1) : -1;
    return number < 0 ? [value] : number;
  };
  // undefined for the prototype that such an object has anyway
  slot.proto = (value) => (value === null ? [null] : numbers[graph.ids.get(value)] >= 0 ? slot(value) : undefined);
  const nodes = [];
  for (let id = 0; id < marks.length; id += 1) if (numbers[id] >= 0) nodes[nodes.length] = encodeNode(graph, id, slot);
  return { nodes, slot };
}

function encodeNode(graph, id, slot) {
  const value = graph.values[id];
  const kind = graph.kinds[id];
  if (kind === "anchor") return { kind, path: graph.places.get(value) };
  if (kind === "symbol") return { kind, key: keyFor(value), text: value.description };
  const node = { kind, proto: slot.proto(getPrototypeOf(value)), open: isExtensible(value), props: [] };
  let skip = () => false;
  let keys = null;
  if (kind === "function") {
    const reading = graph.readings.get(value);
    Object.assign(node, graph.tools.origin(value, reading.source), {
      source: reading.source,
      form: reading.kind,
      strict: Boolean(reading.bare) && !describe(value, "caller"),
      parent: reading.parent,
    });
    skip = (key) => key === "caller" || key === "arguments";
  } else if (kind === "member") {
    const { of, isStatic, key, part } = graph.readings.get(value);
    Object.assign(node, { of: slot(graph.values[of]), isStatic, key: slot(key), part });
  } else if (kind === "prototype") node.of = slot(describe(value, "constructor").value);
  else if (kind === "array") {
    node.length = value.length;
    keys = node.length < 1000 ? null : indices(value, graph.tools.extras);
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
    keys = graph.tools.extras(value);
  }
  keys ??= ownKeys(value);
  for (let i = 0; i < keys.length; i += 1) {
    if (!skip(keys[i])) node.props[node.props.length] = property(value, keys[i], slot);
  }
  return node;
}

function indices(value, extras) {
  const found = [];
  for (let i = 0; i < value.length; i += 1) if (describe(value, i)) found[found.length] = `${i}`;
  const others = extras(value);
  for (let i = 0; i < others.length; i += 1) found[found.length] = others[i];
  if (!describe(value, "length").writable) found[found.length] = "length";
  return found;
}

// [key, flags, value] or, with flag 8, [key, flags, getter, setter]; flags: 1 writable, 2 enumerable, 4 configurable.
export function property(object, key, slot) {
  const found = describe(object, key);
  const flags = (found.writable ? 1 : 0) + (found.enumerable ? 2 : 0) + (found.configurable ? 4 : 0);
  const name = typeof key === "symbol" ? slot(key) : key;
  if (found.get || found.set) return [name, flags + 8, slot(found.get), slot(found.set)];
  return [name, flags, slot(found.value)];
}
