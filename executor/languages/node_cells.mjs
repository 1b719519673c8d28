// The cells that have run, as far as they are remembered: which of them made a name, and where a function was written.

import { Table } from "./node_anchors.mjs";

const MAX_HISTORY = 4_000_000; // characters of the cells remembered
// Each blank and each comment can be matched in one way only: else a cell of many comments would be looked at for ever.
const STRICT = /^(?:\s|\/\/.*(?:[\n\r\u2028\u2029]|$)|\/\*(?:[^*]|\*(?!\/))*\*\/)*(['"])use strict\1/;

// What shows in a source that `name` is given a value or declared there, and that it is mentioned at all.
function patterns(name) {
  const text = name.replace(/[^\p{ID_Continue}]/gu, "\\$&");
  const given = `(?<![.\\w$])(?<!globalThis)${text}\\s*(?:=(?![=>])|[-+*/%&|^?]{1,2}=)|globalThis\\.${text}\\s*=(?!=)`;
  const declared = `\\b(?:let|const|var|class|function\\s*\\*?|import)\\b[^;=]{0,200}?(?<![.\\w$])${text}(?![\\w$])`;
  return [new RegExp(`${given}|${declared}`, "u"), new RegExp(`(?<![\\w$])${text}(?![\\w$])`, "u")];
}

export class Cells {
  constructor() {
    this.history = [];
    this.remembered = 0;
    this.strict = false; // whether one of them was in strict mode
    this.madeBefore = new Table(); // name to cell, from a restored state
    this.origins = new WeakMap(); // restored function to its place
  }

  // Remember what cell `number` was, to say later which one made a name.
  saw(number, source) {
    this.history[this.history.length] = { number, source };
    this.remembered += source.length;
    for (; this.remembered > MAX_HISTORY && this.history.length > 1; ) this.remembered -= this.history.shift().source.length;
    this.strict ||= STRICT.test(source);
  }

  origin(value, source) {
    const known = this.origins.get(value);
    if (known) return known;
    for (let i = this.history.length - 1; i >= 0; i -= 1) {
      const at = this.history[i].source.indexOf(source);
      if (at < 0) continue;
      const before = this.history[i].source.slice(0, at).split("\n");
      return { cell: this.history[i].number, line: before.length - 1, column: before.at(-1).length };
    }
    return { cell: null, line: 0, column: 0 };
  }

  // Whether a cell's source gives `name` a value.
  wasGiven(name) {
    if (this.madeBefore.has(name)) return true;
    const [given] = patterns(name);
    return this.history.some(({ source }) => source.includes(name) && given.test(source));
  }

  // The last cell that declared `name` or gave it a value, as far as its source shows; null where none does.
  maker(name) {
    for (const pattern of patterns(name)) {
      for (let i = this.history.length - 1; i >= 0; i -= 1) {
        const { number, source } = this.history[i];
        if (source.includes(name) && pattern.test(source)) return number;
      }
      if (this.madeBefore.has(name)) return this.madeBefore.get(name);
    }
    return null;
  }
}
