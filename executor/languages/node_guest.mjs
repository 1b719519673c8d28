// What a cell finds in its realm: require, module, imports, Node's modules by name, and streams that wait.

import { Console } from "node:console";
import { Module, createRequire, registerHooks } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

import { Output } from "./node_output.mjs";

export const folder = process.cwd();
export const builtins = new Set(); // names of Node's modules that have been asked for
export const namespaces = new Map(); // what a cell has imported, and the name it used
const cellFile = join(folder, "cell.js");
const packages = pathToFileURL(join(folder, ".packages", "node", "cell.js")).href;

// import has no NODE_PATH: what is not found from the session's folder is looked for among its packages
registerHooks({
  resolve(specifier, context, next) {
    try {
      const found = next(specifier, context);
      if (found.url.startsWith("node:")) builtins.add(found.url.slice(5));
      return found;
    } catch (error) {
      const bare = !/^(\.{0,2}\/|[a-z][a-z0-9+.-]*:)/i.test(specifier);
      if (bare && /MODULE_NOT_FOUND$/.test(error?.code) && context.parentURL !== packages) {
        try {
          return next(specifier, { ...context, parentURL: packages });
        } catch {
          // the first error names the importing file, the second would name ours
        }
      }
      throw error;
    }
  },
});

const importFrom = vm.compileFunction(
  "return options === undefined ? import(specifier) : import(specifier, options)",
  ["specifier", "options"],
  { filename: cellFile, importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER },
);
const importing = async (specifier, options) => {
  const namespace = await importFrom(specifier, options);
  namespaces.set(namespace, `${specifier}`);
  return namespace;
};
export const linking = new WeakSet(); // syntax errors that are about modules and have no place in the cell
importing.names = async (specifier, names, options) => {
  const namespace = await importing(specifier, options);
  for (const name of names) {
    if (!(name in namespace)) {
      const error = new SyntaxError(`The requested module '${specifier}' does not provide an export named '${name}'`);
      linking.add(error);
      throw error;
    }
  }
  return namespace;
};
importing.meta = Object.freeze({
  url: pathToFileURL(cellFile).href,
  filename: cellFile,
  dirname: folder,
  main: true,
  resolve: (specifier) => {
    const found = guestRequire.resolve(specifier);
    return found.startsWith("/") ? pathToFileURL(found).href : found;
  },
});

const guestRequire = createRequire(cellFile);
const guestModule = new Module(cellFile);
guestModule.filename = cellFile;
guestModule.paths = Module._nodeModulePaths(folder);
guestModule.require = guestRequire;
guestRequire.main = guestModule; // `if (require.main === module)` is how scripts start

const hidden = (value) => ({ value, writable: true, configurable: true, enumerable: false });
Object.defineProperties(globalThis, {
  require: hidden(guestRequire),
  module: hidden(guestModule),
  exports: hidden(guestModule.exports),
  __filename: hidden(cellFile),
  __dirname: hidden(folder),
  // imports of a cell are rewritten to this: V8's REPL mode has no loader of its own
  __import__: { value: importing, writable: false, configurable: false, enumerable: false },
});
// Node's modules without `require`, as `node -e` has them
for (const name of Module.builtinModules) {
  if (name in globalThis || /^_|[/:]|^(sys|wasi|trace_events|inspector|test|sqlite)$/.test(name)) continue;
  Object.defineProperty(globalThis, name, {
    configurable: true,
    enumerable: false,
    get: () => guestRequire(name),
    set: (value) => Object.defineProperty(globalThis, name, { ...hidden(value), enumerable: true }),
  });
}
process.argv = [process.execPath, cellFile];

for (const [name, fd] of [["stdout", 1], ["stderr", 2]]) {
  const stream = new Output(fd);
  Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
}

// The global console reports every call to an open inspector session as well, which keeps what was printed alive.
const plainConsole = new Console({ stdout: process.stdout, stderr: process.stderr });
plainConsole.Console = Console;
Object.defineProperty(globalThis, "console", { ...hidden(plainConsole) });
