/** Run with `node --test crates/serve/tests/browser/*.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { answerCost, bytes, count, duration, memoryLine } from '../../src/page/numbers.js';

test('numbers are written with the digits that matter', () => {
  assert.deepEqual([0, 999, 1024, 1536, 10_240, 2_413_467_648].map(bytes), ['0 B', '999 B', '1.0 KiB', '1.5 KiB', '10 KiB', '2.2 GiB']);
  assert.deepEqual([0, 12.4, 999, 1000, 75_900].map(duration), ['0 ms', '12 ms', '999 ms', '1.0 s', '75.9 s']);
  assert.equal(count(1234567), '1,234,567');
});

test('the cost of an answer says what is known, and marks what is counted by the page', () => {
  const known = { tokens: 1200, isEstimate: false, perSecond: 48.2, firstMs: 120, promptTokens: 5000, cachedTokens: 4990 };
  const parts = answerCost({ ...known, finish: 'length' }).split(' · ');
  assert.equal(parts.length, 5, parts.join());
  for (const [index, text] of ['1,200', '48', '120 ms', '5,000', 'limit'].entries()) assert.ok(parts[index].includes(text), parts[index]);
  assert.match(parts[3], /4,990 cached/);
  assert.equal(answerCost({ tokens: 3, isEstimate: true }), '≈3 tokens');
  assert.equal(answerCost({ tokens: 0, isEstimate: true }), '');
});

test('memory is weights, states and the process, where the system tells', () => {
  const states = { kept: 14, kept_bytes: 1 << 30, budget_bytes: 8 * 2 ** 30 };
  const line = memoryLine({ weights: { bytes: 2 ** 31, device_bytes: 0 }, states, resident_bytes: null });
  for (const text of ['2.0 GiB', '14 states', '1.0 GiB', '8.0 GiB']) assert.ok(line.includes(text), line);
  assert.ok(!line.includes('process'), line);
});
