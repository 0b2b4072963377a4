/** Run with `node --test crates/serve/tests/browser/*.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SseParser } from '../../src/page/sse.js';

const bytes = (text) => new TextEncoder().encode(text);
const TEXT = 'data: {"a": "ä🍊"}\n\n: still working\n\ndata:no space\r\n\r\nevent: x\rdata: 1\rdata\rdata:  3\r\rdata: [DONE]\n\n';
const EVENTS = ['{"a": "ä🍊"}', 'no space', '1\n\n 3', '[DONE]'];

test('a stream is read the same wherever it is cut in two, even inside a character or a line end', () => {
  const all = bytes(TEXT);
  for (let cut = 0; cut <= all.length; cut += 1) {
    const parser = new SseParser();
    const events = [...parser.push(all.slice(0, cut)), ...parser.push(all.slice(cut))];
    assert.deepEqual(events, EVENTS, `cut after byte ${cut}`);
  }
});

test('a stream is read byte by byte', () => {
  const parser = new SseParser();
  assert.deepEqual([...bytes(TEXT)].flatMap((byte) => parser.push(Uint8Array.of(byte))), EVENTS);
});

test('an event comes as soon as it is complete, and not before', () => {
  const parser = new SseParser();
  assert.deepEqual(parser.push(bytes('data: 1\n')), []);
  assert.deepEqual(parser.push(bytes('\ndata: 2')), ['1']);
  assert.deepEqual(parser.push(bytes('\n\n')), ['2']);
});
