// Rewrites the imports and exports of a cell, so that V8's REPL mode, which knows neither, can run it.
//
// Static imports move to the front, as the language has it, and become `await __import__(…)`; every line keeps its
// number. Positions come from acorn, the parser inside Node, so strings, comments, templates and regular expressions
// that speak of imports stay as they are.

import { createRequire } from "node:module";

let acorn;

export function parse(code) {
  acorn ??= createRequire(import.meta.url)("internal/deps/acorn/acorn/dist/acorn");
  const options = { ecmaVersion: "latest", allowHashBang: true, allowAwaitOutsideFunction: true };
  try {
    return acorn.parse(code, { ...options, sourceType: "script", allowImportExportEverywhere: true });
  } catch (error) {
    try {
      return acorn.parse(code, { ...options, sourceType: "module" }); // `using` is for modules only
    } catch {
      throw error;
    }
  }
}

export function* nodes(root) {
  const stack = [root];
  while (stack.length) {
    const node = stack.pop();
    yield node;
    for (const value of Object.values(node)) {
      for (const child of Array.isArray(value) ? value : [value]) {
        if (typeof child?.type === "string") stack.push(child);
      }
    }
  }
}

const nameOf = (node) => (node.type === "Literal" ? node.value : node.name);
const quote = JSON.stringify;

function options(node) {
  const pairs = (node.attributes ?? []).map((item) => `${quote(nameOf(item.key))}: ${quote(item.value.value)}`);
  return pairs.length ? `{with: {${pairs.join(", ")}}}` : "undefined";
}

function loading(node) {
  const source = quote(node.source.value);
  const names = [];
  const found = [];
  for (const item of node.specifiers ?? []) {
    if (item.type === "ImportNamespaceSpecifier") {
      found.push(`const ${item.local.name} = await __import__(${source}, ${options(node)});`);
    } else if (item.type === "ImportDefaultSpecifier") names.push(["default", item.local.name]);
    else if (item.type === "ImportSpecifier") names.push([nameOf(item.imported), item.local.name]);
  }
  if (names.length) {
    const bindings = names.map(([name, local]) => `${quote(name)}: ${local}`).join(", ");
    const wanted = quote(names.map(([name]) => name));
    found.push(`const {${bindings}} = await __import__.names(${source}, ${wanted}, ${options(node)});`);
  }
  return found.length ? found.join(" ") : `await __import__(${source}, ${options(node)});`;
}

// `code` with its imports and exports rewritten. Throws acorn's SyntaxError, whose `loc` says where.
export function rewrite(code) {
  const edits = [];
  const first = [];
  const blank = (node) => edits.push([node.start, node.end, `;${code.slice(node.start, node.end).replace(/[^\n]+/g, "")}`]);
  for (const node of nodes(parse(code))) {
    switch (node.type) {
      case "ImportExpression":
      case "MetaProperty":
        if (node.type === "ImportExpression" || node.meta.name === "import") {
          edits.push([node.start, node.start + "import".length, "__import__"]);
        }
        break;
      case "ImportDeclaration":
        first.push([node.start, loading(node)]);
        blank(node);
        break;
      case "ExportAllDeclaration":
        first.push([node.start, loading(node)]);
        blank(node);
        break;
      case "ExportNamedDeclaration":
        if (node.declaration) edits.push([node.start, node.declaration.start, ""]);
        else {
          if (node.source) first.push([node.start, loading({ source: node.source, attributes: node.attributes })]);
          blank(node);
        }
        break;
      case "ExportDefaultDeclaration": {
        const named = /Declaration$/.test(node.declaration.type) && node.declaration.id;
        edits.push([node.start, node.declaration.start, named ? "" : ";("]);
        if (!named) edits.push([node.declaration.end, node.declaration.end, ")"]);
        break;
      }
    }
  }
  edits.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  first.sort((a, b) => a[0] - b[0]);
  let text = "";
  let position = 0;
  for (const [start, end, replacement] of edits) {
    text += code.slice(position, start) + replacement;
    position = end;
  }
  text += code.slice(position);
  if (!first.length) return text;
  return `${first.map(([, statement]) => statement).join(" ")} ${text.startsWith("#!") ? `//${text}` : text}`;
}
