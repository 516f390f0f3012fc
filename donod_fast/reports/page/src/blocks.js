// Reads the data blocks of the page: base64 of zlib-deflate of typed arrays or JSON.

const ARRAYS = { f32: Float32Array, f64: Float64Array, u32: Uint32Array, u16: Uint16Array, u8: Uint8Array };

function bytesOf(text) {
  const clean = text.trim();
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(clean);
  const binary = atob(clean);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** All blocks by name; `read` unpacks one, `take` also frees its text. */
export function openBlocks(root = document) {
  const elements = new Map();
  for (const element of root.querySelectorAll('script[type="application/x-donod"]')) {
    elements.set(element.dataset.name, element);
  }
  async function read(name) {
    const element = elements.get(name);
    if (!element) throw new Error(`the report has no block ${name}`);
    const stream = new Blob([bytesOf(element.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    if (element.dataset.kind === "json") return JSON.parse(new TextDecoder().decode(buffer));
    return new ARRAYS[element.dataset.kind](buffer);
  }
  async function take(name) {
    const value = await read(name);
    elements.get(name).textContent = "";
    return value;
  }
  return { has: (name) => elements.has(name), read, take };
}
