/** Run with `node --test crates/serve/tests/browser/*.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseInline } from '../../src/page/inline.js';
import { parse } from '../../src/page/markdown.js';
import { random } from './random.mjs';

/** Inlines in a short form: `em(a)`, `code(x)`, `link(url|text)`. */
function brief(inlines) {
  const one = (part) => {
    if (typeof part === 'string') return part;
    if (part.type === 'code') return `code(${part.text})`;
    return `${part.type}(${part.type === 'link' ? `${part.url}|` : ''}${brief(part.content)})`;
  };
  return inlines.map(one).join('');
}

const INLINE = [
  ['a *b* c', 'a em(b) c'],
  ['**b** and __b__', 'strong(b) and strong(b)'],
  ['***a***', 'strong(em(a))'],
  ['*a **b***', 'em(a strong(b))'],
  ['**a *b***', 'strong(a em(b))'],
  ['~~gone~~ ~not~', 'del(gone) ~not~'],
  ['2 * 3 * 4', '2 * 3 * 4'],
  ['snake_case_name and _em_', 'snake_case_name and em(em)'],
  ['**open', '**open'],
  ['`a*b*` ``c`d`` `` ` ``', 'code(a*b*) code(c`d) code(`)'],
  ['`open', '`open'],
  ['\\*a\\* \\x', '*a* \\x'],
  ['[t](https://a.b/c_(d) "title")', 'link(https://a.b/c_(d)|t)'],
  ['[**t**](https://a.b)', 'link(https://a.b|strong(t))'],
  ['![p](https://a.b/c.png)', 'link(https://a.b/c.png|p)'],
  ['[https://a.b](https://a.b)', 'link(https://a.b|https://a.b)'],
  ['[](https://a.b)', 'link(https://a.b|https://a.b)'],
  ['[t](mailto:a@b.c)', 'link(mailto:a@b.c|t)'],
  ['<https://a.b>', 'link(https://a.b|https://a.b)'],
  ['See https://a.b/c?d=1, or (https://e.f).', 'See link(https://a.b/c?d=1|https://a.b/c?d=1), or (link(https://e.f|https://e.f)).'],
  ['(https://a.b/c_(d)) **https://e.f**', '(link(https://a.b/c_(d)|https://a.b/c_(d))) strong(link(https://e.f|https://e.f))'],
  ['[t](javascript:alert(1))', '[t](javascript:alert(1))'],
  ['[t](data:text/html,x) [u](/v1/states)', '[t](data:text/html,x) [u](/v1/states)'],
  ['<b>no</b> <script>', '<b>no</b> <script>'],
  ['two\nlines', 'two\nlines'],
];

for (const [text, wanted] of INLINE) {
  test(`inline ${JSON.stringify(text)}`, () => assert.equal(brief(parseInline(text)), wanted));
}

/** Blocks in a short form. */
function outline(blocks) {
  const one = (block) => {
    switch (block.type) {
      case 'paragraph':
        return `p(${brief(block.content)})`;
      case 'heading':
        return `h${block.level}(${brief(block.content)})`;
      case 'fence':
        return `fence(${block.language}|${block.text})`;
      case 'quote':
        return `quote(${outline(block.blocks)})`;
      case 'list':
        return `${block.start ?? 'ul'}[${block.items.map(outline).join(', ')}]`;
      case 'table':
        return `table(${[block.head, ...block.rows].map((row) => row.map(brief).join('|')).join('/')})`;
      default:
        return block.type;
    }
  };
  return blocks.map(one).join(' ');
}

const BLOCKS = [
  ['', ''],
  ['one\ntwo\n\nthree', 'p(one\ntwo) p(three)'],
  ['# One #\n###### Six\n####### seven\n#none', 'h1(One) h6(Six) p(####### seven\n#none)'],
  ['```rust\nfn  f() {}\n\n# not a heading\n```\nafter', 'fence(rust|fn  f() {}\n\n# not a heading) p(after)'],
  ['````\n```\n````', 'fence(|```)'],
  ['~~~\nx\n~~~', 'fence(|x)'],
  ['```py\nstill coming', 'fence(py|still coming)'],
  ['- a\n- b\n  - c\n\n- d', 'ul[p(a), p(b) ul[p(c)], p(d)]'],
  ['3. a\n4. b', '3[p(a), p(b)]'],
  ['1. a\n   ```\n   code\n   ```\n2. b', '1[p(a) fence(|code), p(b)]'],
  ['1. a\n  - b', '1[p(a) ul[p(b)]]'],
  ['- a\n  goes on\nlazily', 'ul[p(a\ngoes on\nlazily)]'],
  ['Text\n- item\nmore\n\nend', 'p(Text) ul[p(item\nmore)] p(end)'],
  ['The year\n1984. Not a list', 'p(The year\n1984. Not a list)'],
  ['- a\n* b', 'ul[p(a)] ul[p(b)]'],
  ['> a\n> - b\n\nc', 'quote(p(a) ul[p(b)]) p(c)'],
  ['---\n* * *\n___', 'rule rule rule'],
  ['|a|b|\n|-|:-:|\n|1|2\\|3|\n|x|\n\nend', 'table(a|b/1|2|3/x|) p(end)'],
  ['a | b\n--- | ---\n`c` | **d**', 'table(a|b/code(c)|strong(d))'],
  ['a | b\nno table', 'p(a | b\nno table)'],
  ['a\r\nb\rc', 'p(a\nb\nc)'],
];

for (const [text, wanted] of BLOCKS) {
  test(`blocks ${JSON.stringify(text)}`, () => assert.equal(outline(parse(text)), wanted));
}

test('whatever a model writes is read, and no address can run anything', () => {
  const seed = 7;
  const pick = random(seed);
  const parts = ['a', 'b ', ' ', '\n', '\n\n', '*', '**', '_', '`', '```', '~~', '[', '](', ')', '!', '<', '>', '|', '-', '- ', '1. ', '# '];
  parts.push('\\', '    ', '> ', '|-|\n', 'https://x.y', 'javascript:', 'data:', ':', '"', '🍊');
  for (let round = 0; round < 5000; round += 1) {
    const text = Array.from({ length: 1 + pick(40) }, () => parts[pick(parts.length)]).join('');
    let blocks;
    assert.doesNotThrow(() => (blocks = parse(text)), `seed ${seed}: ${JSON.stringify(text)}`);
    JSON.stringify(blocks, (key, value) => {
      if (key === 'url') assert.match(value, /^(https?:\/\/|mailto:)/, `seed ${seed}: ${JSON.stringify(text)}`);
      return value;
    });
  }
});

test('a long text is read in a moment, whatever it is made of', () => {
  const parts = ['*a ', '[', '`', '**a ', '![', '_a', '[a](', '<http://', 'https://.', '~~a ', '\\', '***a', '`a``', '*a**b', '> ', '|a'];
  for (const part of [...parts, '1. a\n', '- ', '- a\n  ', '|a|\n|-|\n', '> a\n', '```\n']) {
    const begin = performance.now();
    parse(part.repeat(64_000));
    const seconds = (performance.now() - begin) / 1000;
    // Half a second on a slow machine; minutes, if every mark looked at all others.
    assert.ok(seconds < 10, `${JSON.stringify(part)}: ${seconds} s`);
  }
});
