/** Run with `node --test crates/serve/tests/browser/*.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Tree } from '../../src/page/tree.js';
import { random } from './random.mjs';

const say = (content, role = 'user') => ({ role, content, ...(role === 'assistant' && { calls: [] }) });
const shown = (tree) => tree.path().map(({ message }) => message.content).join(' ');

test('editing and asking again make siblings, and the arrows lead from one to the other', () => {
  const tree = new Tree();
  const question = tree.add(tree.root, say('q1'));
  const answer = tree.add(question, say('a1', 'assistant'));
  tree.add(answer, say('q2'));
  const again = tree.add(question, say('a1b', 'assistant'));
  assert.equal(shown(tree), 'q1 a1b');
  assert.equal(tree.step(again, 1), null);
  assert.equal(tree.step(again, -1), answer);
  assert.equal(shown(tree), 'q1 a1 q2', 'what followed is shown again');
  const edited = tree.add(question.parent, say('q1b'));
  assert.equal(shown(tree), 'q1b');
  assert.equal(tree.leaf(), edited);
  assert.deepEqual(tree.pathTo(again).map(({ message }) => message.content), ['q1', 'a1b']);
});

test('where a message is removed its neighbour is shown', () => {
  const tree = new Tree();
  const [a, b, c] = ['a', 'b', 'c'].map((text) => tree.add(tree.root, say(text)));
  tree.step(c, -1);
  tree.remove(b);
  assert.equal(shown(tree), 'c');
  tree.remove(c);
  assert.equal(shown(tree), 'a');
  tree.remove(a);
  assert.equal(shown(tree), '');
  assert.equal(tree.leaf(), tree.root);
});

test('after 2,000 random steps the path is whole, and a file brings all of it back', () => {
  const seed = 20251124;
  const pick = random(seed);
  const tree = new Tree();
  let nodes = [];
  for (let step = 0; step < 2000; step += 1) {
    const node = nodes[pick(nodes.length)];
    const kind = pick(10);
    if (!node || kind < 5) nodes.push(tree.add(node ?? tree.root, say(`m${step}`, pick(2) ? 'user' : 'assistant')));
    else if (kind < 8) tree.step(node, pick(2) ? 1 : -1);
    else if (kind === 8) nodes.push(tree.add(node.parent, say(`m${step}`)));
    else if (node.children.length === 0) {
      tree.remove(node);
      nodes = nodes.filter((other) => other !== node);
    }
    const path = tree.path();
    assert.equal(path.length === 0, tree.root.children.length === 0, `seed ${seed}, step ${step}`);
    assert.deepEqual(path.at(-1)?.children ?? [], [], 'the path ends at a leaf');
    for (const [index, one] of path.entries()) {
      assert.equal(one.parent, path[index - 1] ?? tree.root);
      assert.ok(one.parent.children.includes(one));
    }
  }
  const text = JSON.stringify(tree);
  const back = Tree.fromJSON(JSON.parse(text));
  assert.equal(JSON.stringify(back), text);
  assert.equal(shown(back), shown(tree));
});

test('a very long conversation is kept, too', () => {
  const tree = new Tree();
  let node = tree.root;
  for (let turn = 0; turn < 20_000; turn += 1) node = tree.add(node, say('x'));
  assert.equal(Tree.fromJSON(JSON.parse(JSON.stringify(tree))).path().length, 20_000);
});

test('a file of a stranger is refused or read, never believed', () => {
  const entry = { parent: -1, role: 'user', content: 'x' };
  const broken = [
    undefined,
    {},
    [null],
    [{ ...entry, parent: 0 }],
    [{ ...entry, parent: 1 }, entry],
    [{ ...entry, parent: '__proto__' }],
    [{ ...entry, role: 'system' }],
    [{ ...entry, content: 5 }],
    [{ ...entry, role: 'tool' }],
    [{ ...entry, role: 'tool', results: [{ id: 1 }] }],
  ];
  for (const value of broken) assert.throws(() => Tree.fromJSON(value), Error, JSON.stringify(value));
  const odd = { ...entry, role: 'assistant', reasoning: 7, calls: 'none', stats: { tokens: 3, x: {} }, extra: 1 };
  const [{ message }] = Tree.fromJSON([odd]).path();
  assert.deepEqual(message, { role: 'assistant', content: 'x', calls: [], stats: { tokens: 3 } });
});
