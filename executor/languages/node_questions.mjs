// What the inspector knows of a value that the language does not say, and what the guard's parser says of a source.

import { receiveMessageOnPort } from "node:worker_threads";

const PATIENCE = 10_000; // milliseconds
const { Object } = globalThis;

export class Questions {
  // `session` is an inspector session; `port` and `turn` lead to the guard, which parses.
  constructor(session, port, turn) {
    this.session = session;
    this.port = port;
    this.turn = turn;
    this.verdicts = new WeakMap(); // function to whether it closes over something
    this.hand = { value: undefined };
    globalThis.__hand__ = this.hand;
    this.handId = this.post("Runtime.evaluate", { expression: "__hand__" }).result.objectId;
    delete globalThis.__hand__;
  }

  post(method, parameters) {
    let answer = null;
    this.session.post(method, parameters, (error, reply) => {
      if (error) throw new Error(error.message);
      answer = reply;
    });
    return answer;
  }

  // The inspector's number of `value`.
  remote(value) {
    this.hand.value = value;
    const { result } = this.post("Runtime.callFunctionOn", {
      objectId: this.handId, functionDeclaration: "function () { return this.value; }", objectGroup: "state",
    });
    this.hand.value = undefined;
    return result.objectId;
  }

  // Own keys of an array or a view that are no indices, without asking for the indices.
  extras(value) {
    const { result } = this.post("Runtime.getProperties", {
      objectId: this.remote(value), ownProperties: true, nonIndexedPropertiesOnly: true,
    });
    const keys = Object.getOwnPropertySymbols(value);
    for (let i = 0; i < result.length; i += 1) {
      const { name, symbol } = result[i];
      if (!symbol && name !== "length" && name !== "__proto__") keys[keys.length] = name;
    }
    return keys;
  }

  // Whether a function uses variables other than the session's own names, by the scopes that V8 has linked to it.
  closes(value, { kind, name }) {
    const known = this.verdicts.get(value);
    if (known !== undefined) return known;
    const inside = this.post("Runtime.getProperties", { objectId: this.remote(value), ownProperties: true });
    const scopes = inside.internalProperties?.find((item) => item.name === "[[Scopes]]");
    let found = !scopes;
    const place = { objectId: scopes?.value.objectId, ownProperties: true };
    const list = scopes ? this.post("Runtime.getProperties", place).result : [];
    let ownScopes = 0;
    for (let i = 0; i < list.length; i += 1) {
      const { value: scope, name: number } = list[i];
      if (!/^\d+$/.test(number) || scope.description === "Script" || scope.description === "Global") continue;
      const names = this.post("Runtime.getProperties", { objectId: scope.objectId, ownProperties: true });
      // a class has a scope of its own, for its name and its private ones
      const own = kind === "class" && scope.description === "Block" && ownScopes === 0 &&
        names.result.every((item) => (item.name === name && name) || /^[#.]/.test(item.name));
      ownScopes += 1;
      if (!own) found = true;
    }
    this.verdicts.set(value, found);
    return found;
  }

  // What the parser says of each source; it sits in the guard's thread.
  analyse(sources) {
    Atomics.store(this.turn, 0, 0);
    this.port.postMessage(sources);
    if (Atomics.wait(this.turn, 0, 0, PATIENCE) === "timed-out") throw new Error("the sources took too long to read");
    return receiveMessageOnPort(this.port).message;
  }
}
