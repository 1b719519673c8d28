// Reads the source of a function or class, and says whether evaluating it again would give the same one.
//
// It runs in the guard's thread, for Node's own parser is to be had there alone. Evaluating must do nothing else: a class
// whose static parts call or compute something is refused, and so is what means something only where it was written.

import { nodes, parse } from "./node_imports.mjs";

const FRESH = ["Map", "Set", "WeakMap", "WeakSet", "Array", "Object", "Date"]; // made anew, then replaced by what was kept
const refuse = (problem) => ({ kind: "", problem, parent: null, name: "", hidden: false, members: [] });

// An expression whose evaluation neither fails nor is seen from outside.
function harmless(node) {
  switch (node?.type) {
    case undefined:
    case "Literal":
    case "FunctionExpression":
    case "ArrowFunctionExpression":
      return true;
    case "TemplateLiteral":
      return node.expressions.every((item) => item.type === "Literal");
    case "UnaryExpression":
      return node.argument.type === "Literal";
    case "ArrayExpression":
      return node.elements.every((item) => item === null || harmless(item));
    case "ObjectExpression":
      return node.properties.every((item) => item.type === "Property" && !item.computed && harmless(item.value));
    case "NewExpression":
      return FRESH.includes(node.callee.name) && !node.arguments.length;
    default:
      return false;
  }
}

// `a.b.c` as names; null for anything else.
function chain(node) {
  if (node.type === "Identifier") return [node.name];
  if (node.type !== "MemberExpression" || node.computed || node.property.type !== "Identifier") return null;
  const start = chain(node.object);
  return start && [...start, node.property.name];
}

// The name of a method or field: a text, `@@iterator` for Symbol.iterator, null where it is computed.
function keyOf({ key, computed }) {
  if (!computed) return key.type === "Literal" ? `${key.value}` : key.name;
  if (key.type === "Literal") return `${key.value}`;
  return key.type === "MemberExpression" && !key.computed && key.object.name === "Symbol" ? `@@${key.property.name}` : null;
}

// Whether `this`, `super`, `arguments` or `new.target` of the function around it are used: an arrow function has none.
function leans(arrow) {
  const stack = [arrow.body, ...arrow.params];
  while (stack.length) {
    const node = stack.pop();
    if (node.type === "ThisExpression" || node.type === "Super" || node.type === "MetaProperty") return true;
    if (node.type === "Identifier" && node.name === "arguments") return true;
    if (/^Function(Expression|Declaration)$/.test(node.type)) continue;
    if (/^Class/.test(node.type)) {
      if (node.superClass) stack.push(node.superClass);
      continue;
    }
    for (const value of Object.values(node)) {
      for (const child of Array.isArray(value) ? value : [value]) {
        if (typeof child?.type === "string") stack.push(child);
      }
    }
  }
  return false;
}

function readClass(node, text) {
  const parent = node.superClass ? chain(node.superClass) : null;
  const nothing = node.superClass?.type === "Literal"; // `extends null`
  if (node.superClass && !parent && !nothing) return refuse("class whose parent is computed");
  const members = [];
  let hidden = false;
  for (const item of node.body.body) {
    if (item.type === "StaticBlock") return refuse("class with a static block");
    if (item.key.type === "PrivateIdentifier") {
      if (item.static && item.type === "PropertyDefinition") return refuse("class with private static fields");
      hidden ||= !item.static;
      continue;
    }
    const key = keyOf(item);
    if (key === null) return refuse("class with computed names");
    if (item.type === "PropertyDefinition") {
      if (item.static && !harmless(item.value)) return refuse("class whose static fields are computed");
      continue;
    }
    if (item.kind !== "constructor") members.push([key, item.static, item.kind, text.slice(item.start, item.end)]);
  }
  return { kind: "class", problem: "", parent, name: node.id?.name ?? "", hidden, members };
}

// {kind, problem, parent, name, hidden, members} of the source. `kind` is class, function, arrow, method or accessor;
// `problem` says in a few words why it cannot be evaluated again; of a class, `parent` is what it extends as a chain of
// names, `hidden` whether its instances have private parts, `members` its methods as [key, static, kind, text].
export function readSource(source) {
  if (/\[native code\]\s*\}$/.test(source)) return refuse("bound or built-in function");
  const plain = `(${source}\n)`;
  let node = null;
  try {
    node = parse(plain).body[0].expression;
  } catch {
    // a method is no expression
  }
  if (node?.type === "ClassExpression") return readClass(node, plain);
  if (node?.type === "FunctionExpression" || node?.type === "ArrowFunctionExpression") {
    const kind = node.type === "FunctionExpression" ? "function" : "arrow";
    if (kind === "arrow" && leans(node)) return refuse("arrow function that holds on to its `this`");
    const bare = kind === "function" && !node.async && !node.generator;
    return { ...refuse(""), kind, bare, name: node.id?.name ?? "" };
  }
  try {
    node = parse(`({${source}\n})`).body[0].expression.properties[0];
  } catch {
    return refuse("function that means something only where it was written");
  }
  for (const inner of nodes(node)) if (inner.type === "Super") return refuse("method that uses `super`");
  if (keyOf(node) === null) return refuse("method with a computed name");
  return { ...refuse(""), kind: node.kind === "init" ? "method" : "accessor" };
}
