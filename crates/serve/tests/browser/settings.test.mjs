/** Run with `node --test crates/serve/tests/browser/*.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DEFAULTS, readSettings, readTools, requestBody, withKnownPersona } from '../../src/page/settings.js';

const QUESTION = { role: 'user', content: 'Weather?' };

test('what is not set is not sent', () => {
  assert.deepEqual(requestBody(DEFAULTS, [QUESTION]), {
    messages: [QUESTION],
    stream: true,
    stream_options: { include_usage: true },
  });
});

test('what is set is sent under the names of the API, zero as well', () => {
  const tools = [{ type: 'function', function: { name: 'weather' } }];
  const settings = {
    persona: 'cook',
    system: 'Be brief.',
    tools: JSON.stringify(tools),
    toolChoice: 'required',
    thinking: 'off',
    thinkingBudget: 0,
    temperature: 0,
    topP: 0.5,
    maxTokens: 9,
  };
  const { messages, stream, stream_options: _, ...rest } = requestBody(settings, [QUESTION]);
  assert.deepEqual(messages, [{ role: 'system', content: 'Be brief.' }, QUESTION]);
  assert.ok(stream);
  assert.deepEqual(rest, {
    tools,
    tool_choice: 'required',
    persona: 'cook',
    reasoning: { enabled: false },
    thinking_budget: 0,
    temperature: 0,
    top_p: 0.5,
    max_completion_tokens: 9,
  });
});

test('a persona that the server does not have is none, and nothing else changes', () => {
  const settings = { ...DEFAULTS, persona: 'cook', system: 'Be brief.', topP: 0.5 };
  assert.equal(withKnownPersona(settings, [{ name: 'pirate' }, { name: 'cook' }]), settings);
  for (const personas of [[], [{ name: 'pirate' }], [{ name: 'Cook' }]]) {
    const known = withKnownPersona(settings, personas);
    assert.deepEqual(known, { ...settings, persona: '' });
    assert.equal(requestBody(known, [QUESTION]).persona, undefined);
  }
  assert.equal(settings.persona, 'cook');
});

test('calls and their results go back as they came, with the reasoning before them', () => {
  const call = { id: 'c1', name: 'weather', arguments: '{"city": "Ulm"}' };
  const path = [
    QUESTION,
    { role: 'assistant', content: '', reasoning: 'Look it up.', calls: [call] },
    { role: 'tool', content: '', results: [{ id: 'c1', name: 'weather', content: 'rain' }] },
    { role: 'assistant', content: '', reasoning: '', calls: [], error: 'gone' },
  ];
  assert.deepEqual(requestBody(DEFAULTS, path).messages, [
    QUESTION,
    {
      role: 'assistant',
      content: '',
      reasoning_content: 'Look it up.',
      tool_calls: [{ id: 'c1', type: 'function', function: { name: 'weather', arguments: '{"city": "Ulm"}' } }],
    },
    { role: 'tool', tool_call_id: 'c1', content: 'rain' },
  ]);
});

test('tools that are no list are refused with a reason', () => {
  assert.deepEqual(readTools(' '), []);
  assert.throws(() => readTools('{'), SyntaxError);
  assert.throws(() => readTools('{}'), /list/);
});

test('settings of a stranger are taken where they fit', () => {
  const given = { system: 'x', temperature: '1', topP: 0.5, thinking: null, maxTokens: Infinity, other: 1 };
  assert.deepEqual(readSettings(given), { ...DEFAULTS, system: 'x', topP: 0.5 });
  for (const nothing of [undefined, null, 5, 'x']) assert.deepEqual(readSettings(nothing), DEFAULTS);
});
