// Requests to the server. Columns come as bytes: a header in JSON, then an array per field.

/** An answer that says what is wrong: status 0 where there was none at all. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function request(path, body, options = {}) {
  const sent = body === undefined ? {} : body instanceof Blob ? { method: "POST", body }
    : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  let response;
  try {
    response = await fetch(path, { ...sent, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "nshot does not answer");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refused(response.status, said.error ?? response.statusText);
}

/** The whole answer: a server that goes away in the middle of it has not answered. */
async function whole(read, path, body, options) {
  const response = await request(path, body, options);
  try {
    return await read(response);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "nshot does not answer");
  }
}

export const json = (path, body, options) => whole((response) => response.json(), path, body, options);
export const bytes = (path, body, options) => whole((response) => response.arrayBuffer(), path, body, options);

const HALVES = new Float32Array(65536); // what every float16 is worth
for (let code = 0; code < 65536; code++) {
  const sign = code & 0x8000 ? -1 : 1, exponent = (code >> 10) & 31, rest = code & 1023;
  HALVES[code] = exponent === 31 ? (rest ? NaN : sign * Infinity)
    : exponent ? sign * 2 ** (exponent - 15) * (1 + rest / 1024) : sign * 2 ** -14 * (rest / 1024);
}
function floats(codes) {
  const values = new Float32Array(codes.length);
  for (let k = 0; k < codes.length; k++) values[k] = HALVES[codes[k]];
  return values;
}

/** What /api/ask answers. Codes are float16 as they came: for numbers of one sign they sort as the numbers do. */
export function columns(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const next = () => {
    const column = new Uint16Array(buffer.slice(at, at + 2 * header.rows));
    at += 2 * header.rows;
    return column;
  };
  const label = next(), scoreCodes = next(), marginCodes = next(), fitsCodes = next();
  const set = header.sets && new Uint32Array(buffer.slice(at, at + 4 * header.rows)); // of several labels: which combination
  return { ...header, set, label, scoreCodes, marginCodes, score: floats(scoreCodes), margin: floats(marginCodes), fits: floats(fitsCodes) };
}

const HEX = Array.from({ length: 256 }, (_, k) => k.toString(16).padStart(2, "0"));

/** What /api/rows answers: digests in hexadecimal, whether each was read, and names. */
export function unpacked(buffer) {
  const n = new DataView(buffer).getUint32(0, true), all = new Uint8Array(buffer, 4);
  const digests = [];
  for (let row = 0; row < n; row++) {
    let text = "";
    for (let k = 32 * row; k < 32 * row + 32; k++) text += HEX[all[k]];
    digests.push(text);
  }
  const names = n ? new TextDecoder().decode(all.subarray(33 * n)).split("\0") : [];
  return { digests, read: all.slice(32 * n, 33 * n), names };
}
