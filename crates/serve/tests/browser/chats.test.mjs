/** Run with `node --test crates/serve/tests/browser/*.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { exportChat, importChat, listChats, loadChat, newChat, removeChat, saveChat } from '../../src/page/chats.js';
import { DEFAULTS } from '../../src/page/settings.js';

/** What the page uses of the browser's storage: names are properties, as there. */
class Storage {
  constructor() {
    Object.defineProperties(this, {
      getItem: { value: (name) => this[name] ?? null },
      setItem: { value: (name, text) => (this[name] = text) },
      removeItem: { value: (name) => delete this[name] },
    });
  }
}

function begun(content, settings = DEFAULTS) {
  const chat = newChat(settings);
  chat.tree.add(chat.tree.add(chat.tree.root, { role: 'user', content }), { role: 'assistant', content: 'Hi.', calls: [] });
  return chat;
}

test('a chat that was kept comes back with its branches and settings', () => {
  const storage = new Storage();
  const chat = begun('Hello', { ...DEFAULTS, system: 'Be brief.' });
  chat.tree.add(chat.tree.root, { role: 'user', content: 'Hello again' });
  saveChat(storage, chat);
  const back = loadChat(storage, chat.id);
  assert.deepEqual([back.id, back.settings.system], [chat.id, 'Be brief.']);
  assert.equal(JSON.stringify(back.tree), JSON.stringify(chat.tree));
  removeChat(storage, chat.id);
  assert.equal(loadChat(storage, chat.id), null);
});

test('chats are listed by what was said first; empty and broken ones are not', () => {
  const storage = new Storage();
  saveChat(storage, newChat());
  saveChat(storage, begun(`${'long '.repeat(30)}\nsecond line`));
  storage.setItem('tangelo.chat.broken', '{');
  storage.setItem('tangelo.current', 'x');
  const [{ title }, ...others] = listChats(storage);
  assert.deepEqual(others, []);
  assert.ok(title.startsWith('long long') && title.length === 60, title);
});

test('a file brings a chat back under a new id, and nothing else does', () => {
  const chat = begun('Hello');
  const back = importChat(exportChat(chat));
  assert.notEqual(back.id, chat.id);
  assert.equal(JSON.stringify(back.tree), JSON.stringify(chat.tree));
  const file = JSON.parse(exportChat(chat));
  for (const broken of ['', 'null', '{}', JSON.stringify({ ...file, version: 2 }), JSON.stringify({ ...file, messages: 1 })]) {
    assert.throws(() => importChat(broken), Error, broken);
  }
});
