// Writes to the channel, to stdout and to stderr, and waits where a pipe is full.

import { Buffer } from "node:buffer";
import { writeSync } from "node:fs";
import process from "node:process";
import { Writable } from "node:stream";

export const CONTROL = 3;
const MAX_FRAME = 8 * 1024 * 1024;
const { stringify } = JSON;
const pause = new Int32Array(new SharedArrayBuffer(4));

// All of `bytes`, now.
export function writeAll(fd, bytes) {
  for (let offset = 0; offset < bytes.length; ) {
    try {
      offset += writeSync(fd, bytes, offset);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(pause, 0, 0, 1); // full: the leader reads, sooner or later
    }
  }
}

// One frame to the leader; false, and nothing sent, where it is too long for a frame.
export function send(message) {
  const body = Buffer.from(stringify(message));
  if (body.length > MAX_FRAME) return false;
  const size = Buffer.alloc(4);
  size.writeUInt32BE(body.length);
  writeAll(CONTROL, Buffer.concat([size, body]));
  return true;
}

// Node's own streams queue what a pipe cannot take: a loop that prints would fill the memory, and the end of a cell would
// overtake its output. These wait instead.
export class Output extends Writable {
  constructor(fd) {
    super({ decodeStrings: true });
    this.fd = fd;
    this._type = "pipe";
  }

  _write(chunk, _encoding, done) {
    try {
      writeAll(this.fd, chunk);
      done();
    } catch (error) {
      done(error);
    }
  }

  // the streams belong to the session and outlive whoever thinks that it is done with them
  end(chunk, encoding, done) {
    if (chunk !== undefined && chunk !== null && typeof chunk !== "function") this.write(chunk, encoding);
    [chunk, encoding, done].find((item) => typeof item === "function")?.();
    return this;
  }

  destroy() {
    return this;
  }
}
