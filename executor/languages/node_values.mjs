// What values are, found out without calling anything of the guest's: by V8's own tests and by property descriptors.
//
// The guest may have replaced any built-in function, so those that are used are taken before the first cell.

import { types } from "node:util";

import { Bag, Table } from "./node_anchors.mjs";

const { Array, Boolean, BigInt, Date, Error, Map, Number, Object, Reflect, RegExp, Set, String, Symbol } = globalThis;
export const { apply, getPrototypeOf, isExtensible, ownKeys } = Reflect;
export const describe = Reflect.getOwnPropertyDescriptor;
export const { forEach: eachEntry } = Map.prototype;
export const { forEach: eachItem } = Set.prototype;
export const { getTime } = Date.prototype;
export const toText = Function.prototype.toString;
export const sourceOf = describe(RegExp.prototype, "source").get;
export const flagsOf = describe(RegExp.prototype, "flags").get;
export const lengthOf = describe(getPrototypeOf(Uint8Array.prototype), "byteLength").get;
export const bufferOf = describe(getPrototypeOf(Uint8Array.prototype), "buffer").get;
export const offsetOf = describe(getPrototypeOf(Uint8Array.prototype), "byteOffset").get;
export const kindOf = describe(getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag).get;
export const [viewLength, viewBuffer] = ["byteLength", "buffer"].map((key) => describe(DataView.prototype, key).get);
export const viewOffset = describe(DataView.prototype, "byteOffset").get;
export const bytesOf = describe(ArrayBuffer.prototype, "byteLength").get;
export const symbolOf = Symbol.prototype.valueOf;
export const { keyFor } = Symbol;
export const BOXES = [Number, String, Boolean, BigInt];
const prototypes = [Object, Array, Map, Set, Date, RegExp].map((kind) => kind.prototype);
export const [OBJECT, ARRAY, MAP, SET, DATE, REGEXP] = prototypes;
export const FUNCTION = Function.prototype;
export const errorStack = describe(new Error("stack"), "stack").get;
export const ERRORS = new Bag();
for (const kind of [Error, RangeError, TypeError, SyntaxError, EvalError, ReferenceError, URIError, AggregateError]) {
  ERRORS.add(kind.prototype);
}
export const VIEWS = new Table();
for (const kind of [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float32Array,
  Float64Array, BigInt64Array, BigUint64Array, globalThis.Float16Array]) {
  if (kind) VIEWS.set(kind.name, kind.prototype);
}

// Kinds of objects that live in their process, as people call them.
export const LIVING = {
  __proto__: null,
  Timeout: "timer", Immediate: "timer", Socket: "open socket", TLSSocket: "open socket", Server: "server",
  ChildProcess: "running process", ReadStream: "open file", WriteStream: "open file", Worker: "thread",
  WeakRef: "weak reference", FileHandle: "open file", AsyncFunction: "function", Hash: "hash under way",
  EventEmitter: "object with listeners", URL: "URL object: keep its text", AbortController: "abort signal",
};

// Objects with a state that cannot be read, by the test that tells them.
export const BRANDS = [
  types.isPromise, "promise", types.isSharedArrayBuffer, "shared memory", types.isWeakMap, "weak map",
  types.isWeakSet, "weak set", types.isGeneratorObject, "generator", types.isExternal, "native object",
  types.isMapIterator, "iterator", types.isSetIterator, "iterator", types.isArgumentsObject, "arguments of a call",
  types.isModuleNamespaceObject, "module that cannot be named",
];

// Two hundred times as slow as the tests above.
export const isKey = (value) => types.isKeyObject(value) || types.isCryptoKey(value);

export const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";
export const textOf = (key) => (typeof key === "symbol" ? "[symbol]" : key);

export const isOrdinary = (found) => !found.get && !found.set && found.writable && found.enumerable && found.configurable;

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
export function makerName(start) {
  for (let proto = start, steps = 0; proto && steps < 100 && !types.isProxy(proto); steps += 1) {
    const maker = describe(proto, "constructor")?.value;
    const name = typeof maker === "function" && !types.isProxy(maker) ? describe(maker, "name")?.value : null;
    if (typeof name === "string" && name) return name.slice(0, 100);
    proto = getPrototypeOf(proto);
  }
  return "object";
}

// The primitive in a boxed one that is no symbol.
export function unbox(value) {
  if (types.isNumberObject(value)) return apply(Number.prototype.valueOf, value, []);
  if (types.isStringObject(value)) return apply(String.prototype.valueOf, value, []);
  if (types.isBooleanObject(value)) return apply(Boolean.prototype.valueOf, value, []);
  return apply(BigInt.prototype.valueOf, value, []);
}

// About how many bytes `start` takes if all that it leads to is plain data, else -1; nothing is entered. It is three
// times as quick as entering. Every 64th object is marked, and meeting a mark again ends it: something is shared.
export function plainSize(start, places, extras) {
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
    if (typeof value === "function" || types.isProxy(value) || places.has(value) || marks.has(value)) return -1;
    if (count % 64 === 0) marks.add(value);
    count += 1;
    size += 4;
    let proto = OBJECT;
    let keys = null;
    if (Array.isArray(value)) {
      proto = ARRAY;
      if (value.length >= 1000) {
        if (extras(value).length || value.length > 10_000_000) return -1;
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
      if (extras(value).length) return -1;
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
