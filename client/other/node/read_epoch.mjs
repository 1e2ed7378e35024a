// Reads an epoch over HTTP, and prints how many rows and batches it has, and a checksum of each column.
//
//     npm ci
//     node read_epoch.mjs 'http://127.0.0.1:8080/v1/datasets/shapes/epochs/3/batches?schedule=cifar10-pba'

import { RecordBatchReader } from "apache-arrow";

/** FNV-1a of 64 bits, which JavaScript has to keep as two halves. */
class Checksum {
  low = 0x84222325;
  high = 0xcbf29ce4;

  add(bytes) {
    let { low, high } = this;
    for (const byte of bytes) {
      low = (low ^ byte) >>> 0;
      // Times 2^40 + 0x1b3.
      const product = low * 0x1b3;
      high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
      low = product >>> 0;
    }
    Object.assign(this, { low, high });
  }

  toString() {
    return [this.high, this.low].map((half) => half.toString(16).padStart(8, "0")).join("");
  }
}

/** The bytes of a column: of a tensor, those of all its pixels. Nothing is null. */
function bytes(column) {
  return column.data.map((data) => {
    const { values, stride } = data.children.length ? data.children[0] : data;
    const width = data.children.length ? data.stride : stride;
    const [begin, end] = [data.offset * width, (data.offset + data.length) * width];
    const numbers = values.subarray(begin, end);
    return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  });
}

async function main(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  const reader = await RecordBatchReader.from(response);
  await reader.open();
  const { metadata } = reader.schema;
  const checksums = { image: new Checksum(), label: new Checksum(), index: new Checksum() };
  let [rows, batches] = [0, 0];
  for await (const batch of reader) {
    for (const [name, checksum] of Object.entries(checksums)) {
      bytes(batch.getChild(name)).forEach((part) => checksum.add(part));
    }
    rows += batch.numRows;
    batches += 1;
  }
  // A stream of Arrow may end anywhere between two batches, so its metadata says how many there are.
  const expected = ["pba.rows", "pba.batches"].map((key) => Number(metadata.get(key)));
  if (rows !== expected[0] || batches !== expected[1]) {
    throw new Error(`the stream was cut: ${rows} of ${expected[0]} rows, ${batches} of ${expected[1]} batches`);
  }
  console.log(`rows ${rows}\nbatches ${batches}`);
  for (const [name, checksum] of Object.entries(checksums)) console.log(`${name} ${checksum}`);
}

if (process.argv.length !== 3) {
  console.error("usage: node read_epoch.mjs URL");
  process.exit(2);
}
main(process.argv[2]).catch((error) => {
  const reason = error.cause?.message ? `: ${error.cause.message}` : "";
  console.error(`error: ${error.message}${reason}`);
  process.exit(1);
});
