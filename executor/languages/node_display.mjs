// Turns what a guest hands to display() into a MIME bundle, and a picture where there is one.

import { Buffer } from "node:buffer";

const OFFERS = Symbol.for("Jupyter.display"); // the method that JavaScript notebooks look for
const bytesOf = (value) => (value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.length) : null);

// Width and height in pixels of a PNG or JPEG, from its header; null for anything else.
function pictureSize(bytes) {
  if (bytes.length > 24 && bytes.readUInt32BE(0) === 0x89504e47) {
    return { mime: "image/png", width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
  }
  if (bytes.length > 4 && bytes.readUInt16BE(0) === 0xffd8) {
    for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; at += 2 + bytes.readUInt16BE(at + 2)) {
      // a start-of-frame segment; C4, C8 and CC share the range and are none
      if (bytes[at + 1] >= 0xc0 && bytes[at + 1] <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(bytes[at + 1])) {
        return { mime: "image/jpeg", width: bytes.readUInt16BE(at + 7), height: bytes.readUInt16BE(at + 5) };
      }
    }
  }
  return null;
}

function picture(value) {
  const bytes = typeof value === "string" ? Buffer.from(value, "base64") : bytesOf(value);
  const size = bytes && pictureSize(bytes);
  if (!size || size.width > 1e6 || size.height > 1e6) return null;
  return { ...size, data: bytes.toString("base64"), path: null, alt: "" };
}

// {data, picture} for `value`: an object whose keys are MIME types is taken as it is, the bytes of a picture as one.
export function bundle(value, inspect, most) {
  let given = value;
  if (typeof given?.[OFFERS] === "function") given = given[OFFERS]();
  const drawn = bytesOf(given) && picture(given);
  if (drawn) return { data: {}, picture: drawn };
  const keys = given && typeof given === "object" && !Array.isArray(given) ? Object.keys(given) : [];
  if (!keys.length || !keys.every((key) => /^[\w.+-]+\/[\w.+-]+(;.*)?$/.test(key))) {
    return { data: { "text/plain": inspect(value, { showProxy: true }).slice(0, most) }, picture: null };
  }
  const data = {};
  let found = null;
  for (const key of keys) {
    const drawnHere = key === "image/png" || key === "image/jpeg" ? picture(given[key]) : null;
    if (drawnHere) found = drawnHere;
    else data[key] = bytesOf(given[key])?.toString("utf8") ?? given[key];
  }
  return { data, picture: found };
}
