/** Run with `node --test crates/serve/tests/browser/*.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Answer, parsed } from '../../src/page/answer.js';

const delta = (value, finish_reason = null) => ({ choices: [{ index: 0, delta: value, finish_reason }] });
const start = { ...delta({ role: 'assistant', content: '' }), tangelo: { cached_tokens: 16, replayed_tokens: 0 } };
const usage = {
  choices: [],
  usage: {
    prompt_tokens: 20,
    completion_tokens: 9,
    prompt_tokens_details: { cached_tokens: 16 },
    completion_tokens_details: { reasoning_tokens: 2 },
  },
};

function take(answer, chunks, begin = 1000, each = 500) {
  chunks.forEach((chunk, index) => answer.take(chunk, begin + index * each));
  return answer;
}

test('reasoning, text and calls are put together from their pieces', () => {
  const call = (index, rest) => delta({ tool_calls: [{ index, ...rest }] });
  const answer = take(new Answer(0), [
    start,
    delta({ reasoning_content: 'Look ' }),
    delta({ reasoning_content: 'it up.' }),
    delta({ content: 'One moment.' }),
    call(0, { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '' } }),
    call(0, { function: { arguments: '{"city":' } }),
    call(0, { function: { arguments: '"Ulm"}' } }),
    call(1, { id: 'call_2', type: 'function', function: { name: 'time', arguments: '{}' } }),
    delta({}, 'tool_calls'),
  ]);
  assert.deepEqual(answer.message, {
    role: 'assistant',
    content: 'One moment.',
    reasoning: 'Look it up.',
    calls: [
      { id: 'call_1', name: 'weather', arguments: '{"city":"Ulm"}' },
      { id: 'call_2', name: 'time', arguments: '{}' },
    ],
  });
  assert.equal(answer.stats().finish, 'tool_calls');
});

test('it is reasoning until something else is said', () => {
  const answer = take(new Answer(0), [start]);
  assert.ok(answer.hasStarted && !answer.isReasoning);
  take(answer, [delta({ reasoning_content: 'Hm' })]);
  assert.ok(answer.isReasoning);
  take(answer, [delta({ content: 'Yes' })]);
  assert.ok(!answer.isReasoning);
});

test('times begin with the question, and speed with the first token', () => {
  const answer = take(new Answer(0), [start, delta({ reasoning_content: 'a' }), delta({ content: 'b' }), delta({ content: 'c' })]);
  assert.deepEqual(
    { ...answer.stats() },
    {
      tokens: 3,
      isEstimate: true,
      perSecond: 2,
      firstMs: 1500,
      promptTokens: undefined,
      cachedTokens: 16,
      reasoningTokens: undefined,
      finish: undefined,
    },
  );
  take(answer, [delta({}, 'stop'), usage], 3000);
  const { tokens, isEstimate, perSecond, promptTokens, reasoningTokens, finish } = answer.stats();
  assert.deepEqual([tokens, isEstimate, promptTokens, reasoningTokens, finish], [9, false, 20, 2, 'stop']);
  assert.equal(perSecond, 8, 'the server counts tokens, the page has seen pieces');
});

test('one token, or none, has no speed', () => {
  assert.equal(new Answer(0).stats().perSecond, undefined);
  assert.equal(take(new Answer(0), [delta({ content: 'x' })]).stats().perSecond, undefined);
});

test('an answer that was cut off keeps what was said, but no half of a call', () => {
  const half = delta({ tool_calls: [{ index: 0, id: 'c', function: { name: 'f', arguments: '{"a": ' } }] });
  for (const end of [(a) => a.stop(), (a) => a.fail('gone'), (a) => a.take(delta({}, 'length'), 9000)]) {
    const answer = take(new Answer(0), [start, delta({ content: 'Well' }), half]);
    end(answer);
    assert.deepEqual([answer.message.content, answer.message.calls], ['Well', []]);
  }
});

test('a failure in the stream is one', () => {
  const answer = new Answer(0);
  assert.throws(() => answer.take({ error: { message: 'the dog ate it' } }, 1), /the dog ate it/);
  answer.fail('the dog ate it');
  assert.equal(answer.message.error, 'the dog ate it');
});

test('only JSON has a value', () => {
  assert.deepEqual(parsed('{"a": 1}'), { a: 1 });
  assert.equal(parsed('{"a":'), undefined);
});
