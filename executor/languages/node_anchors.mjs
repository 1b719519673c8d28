// What a fresh process has as well: built-in objects, modules and their parts, and the way to each from a root.

import { Module, createRequire } from "node:module";
import { relative, resolve } from "node:path";
import process from "node:process";
import vm from "node:vm";

import { builtins, folder, namespaces } from "./node_guest.mjs";

const { Map, Object, Reflect, Set } = globalThis;
const LIVING = ["process", "module", "require", "exports"]; // they change by themselves: places to point to, no more

// Globals that are more than the language, and there from the start. To look at another one of Node's can load half of
// Node: those are left alone until a cell has given one a value.
const READY = new Set([
  "console", "URL", "URLSearchParams", "Event", "EventTarget", "TextEncoder", "TextDecoder", "clearImmediate", "setImmediate",
  "clearInterval", "clearTimeout", "setInterval", "setTimeout", "queueMicrotask", "structuredClone", "atob", "btoa", "fetch",
  "global", "process", "require", "module", "exports", "__filename", "__dirname", "__import__", "display", "Buffer",
  "WebAssembly",
]);
const LANGUAGE = new Set(vm.runInContext("Reflect.ownKeys(globalThis)", vm.createContext()));
const isReady = (key) => READY.has(key) || LANGUAGE.has(key) || Module.builtinModules.includes(key);

// A Map and a Set that a guest's changes to the prototypes do not reach.
function pinned(Base) {
  class Pinned extends Base {}
  const names = Reflect.ownKeys(Base.prototype);
  for (let i = 0; i < names.length; i += 1) {
    if (names[i] !== "constructor") {
      Object.defineProperty(Pinned.prototype, names[i], Object.getOwnPropertyDescriptor(Base.prototype, names[i]));
    }
  }
  return Pinned;
}
export const Table = pinned(Map);
export const Bag = pinned(Set);

// Objects of the language that no name leads to.
const NAMELESS = vm.runInThisContext(`[
  Object.getPrototypeOf(function* () {}), Object.getPrototypeOf(async function () {}),
  Object.getPrototypeOf(async function* () {}), Object.getPrototypeOf(Uint8Array),
  Object.getPrototypeOf([][Symbol.iterator]()), Object.getPrototypeOf(new Map()[Symbol.iterator]()),
  Object.getPrototypeOf(new Set()[Symbol.iterator]()), Object.getPrototypeOf(""[Symbol.iterator]()),
  Object.getPrototypeOf("".matchAll(/a/g)),
]`);
const timers = [setTimeout(() => {}, 0), setImmediate(() => {})];
clearTimeout(timers[0]);
clearImmediate(timers[1]);

const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

// `visit(object, path)` for `value` and what its own properties lead to; getters are never called.
function roam(value, path, depth, known, visit) {
  if (!isObject(value) || known.has(value)) return;
  known.set(value, path);
  visit?.(value, path);
  if (!depth) return;
  const keys = Reflect.ownKeys(value);
  for (let i = 0; i < keys.length; i += 1) {
    const found = Object.getOwnPropertyDescriptor(value, keys[i]);
    if (!found || typeof keys[i] === "symbol") continue;
    const next = [];
    for (let j = 0; j < path.length; j += 1) next[j] = path[j];
    next[path.length] = keys[i];
    if (found.get) {
      if (!known.has(found.get)) known.set(found.get, [{ get: next }]);
    } else roam(found.value, next, depth - 1, known, visit);
  }
}

const known = new Table(); // object to path
const shapes = new Table(); // object of the language to {path, entries: key to value}
export const baseline = new Table(); // own properties of the global object, before the first cell; null for one left alone

// Must run when the guest's realm is complete, and before the first cell.
export function remember() {
  const record = (object, path) => {
    const entries = new Table();
    const keys = Reflect.ownKeys(object);
    for (let i = 0; i < keys.length; i += 1) {
      const found = Object.getOwnPropertyDescriptor(object, keys[i]);
      entries.set(keys[i], found.get ?? found.value);
    }
    shapes.set(object, { path, entries });
  };
  known.set(globalThis, ["global"]);
  known.set(process.env, ["env"]);
  for (let i = 0; i < LIVING.length; i += 1) roam(globalThis[LIVING[i]], ["global", LIVING[i]], 1, known);
  const keys = Reflect.ownKeys(globalThis);
  for (let i = 0; i < keys.length; i += 1) {
    const found = isReady(keys[i]) ? Object.getOwnPropertyDescriptor(globalThis, keys[i]) : null;
    baseline.set(keys[i], found);
    if (typeof keys[i] !== "string" || !found || found.get) continue;
    const path = ["global", keys[i]];
    if (keys[i] !== "console") roam(found.value, path, 3, known, record);
    else {
      record(found.value, path); // but not its streams, which change by themselves
      roam(found.value, path, 1, known);
    }
  }
  const symbols = Reflect.ownKeys(Symbol);
  for (let i = 0; i < symbols.length; i += 1) {
    if (typeof Symbol[symbols[i]] === "symbol") known.set(Symbol[symbols[i]], ["global", "Symbol", symbols[i]]);
  }
  for (let i = 0; i < NAMELESS.length; i += 1) roam(NAMELESS[i], ["nameless", i], 2, known, record);
  for (let i = 0; i < timers.length; i += 1) {
    known.set(Object.getPrototypeOf(timers[i]), ["living", i ? "Immediate" : "Timeout", "prototype"]);
  }
}

// Properties of the language's own objects that the guest has added or replaced: [object, path, key] each.
export function changes() {
  const found = [];
  shapes.forEach(({ path, entries }, object) => {
    const keys = Reflect.ownKeys(object);
    for (let i = 0; i < keys.length; i += 1) {
      const now = Object.getOwnPropertyDescriptor(object, keys[i]);
      const value = now.get ?? now.value;
      if (!entries.has(keys[i]) || !Object.is(entries.get(keys[i]), value)) {
        found[found.length] = { object, path, key: keys[i] };
      }
    }
  });
  return found;
}

// Object to path, for everything that is not to be copied now: what a fresh process has, and what modules export.
export function anchors() {
  const all = new Table();
  known.forEach((path, object) => all.set(object, path));
  const open = (name) => {
    const exported = process.getBuiltinModule(name);
    if (exported) roam(exported, ["module", name], 2, all);
  };
  open("buffer"); // its classes are there without having been asked for
  builtins.forEach((name) => {
    open(name);
    if (!name.includes("/")) open(`${name}/promises`); // `fs.promises` is a getter, which is not called
  });
  namespaces.forEach((specifier, namespace) => roam(namespace, ["import", specifier], 2, all));
  const { cache } = createRequire(`${folder}/cell.js`);
  const files = Reflect.ownKeys(cache);
  for (let i = 0; i < files.length; i += 1) {
    const exported = cache[files[i]]?.exports;
    if (!isObject(exported) || /\.json$/.test(files[i])) continue; // what was read from JSON is data
    const inside = relative(folder, files[i]);
    roam(exported, ["require", inside.startsWith("..") ? files[i] : `./${inside}`], 2, all);
  }
  return all;
}

// A module of the session's own folder: it may hold state, and loading it again begins anew.
export const isOwnModule = (path) =>
  (path[0] === "require" && /^\.\/(?!.*node_modules\/)/.test(path[1])) || (path[0] === "import" && /^\.{1,2}\//.test(path[1]));

// The object at `path`, in this process. Throws where it is not there.
export async function reach(path) {
  if (path[0].get) {
    const place = [];
    for (let i = 0; i < path[0].get.length - 1; i += 1) place[i] = path[0].get[i];
    return Object.getOwnPropertyDescriptor(await reach(place), path[0].get[place.length]).get;
  }
  const guestRequire = createRequire(resolve(folder, "cell.js"));
  let at;
  let next = 2;
  if (path[0] === "module") at = process.getBuiltinModule(path[1]) ?? guestRequire(path[1]);
  else if (path[0] === "require") at = guestRequire(path[1]);
  else if (path[0] === "import") at = await globalThis.__import__(path[1]);
  else if (path[0] === "nameless") at = NAMELESS[path[1]];
  else if (path[0] === "env") at = process.env;
  else [at, next] = [globalThis, 1];
  for (; next < path.length; next += 1) at = at[path[next]];
  if (at === undefined) throw new Error("it is not there");
  return at;
}
