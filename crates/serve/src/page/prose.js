/**
 * Shows Markdown as elements, and keeps those that did not change while the text grows.
 */

import { copyButton, h } from './dom.js';
import { parse } from './markdown.js';

/** An element that shows a text which may grow. */
export class Prose {
  constructor() {
    this.element = h('div', { class: 'prose' });
    this.#shown = [];
  }

  /** What each child of the element shows, as JSON. */
  #shown;

  /** @param {string} text The whole text. */
  set(text) {
    const blocks = parse(text);
    blocks.forEach((block, index) => {
      const json = JSON.stringify(block);
      if (this.#shown[index] === json) return;
      this.#shown[index] = json;
      const old = this.element.children[index];
      if (old) old.replaceWith(show(block));
      else this.element.append(show(block));
    });
    this.#shown.length = blocks.length;
    while (this.element.children.length > blocks.length) this.element.lastChild.remove();
  }
}

/** @param {import('./markdown.js').Block} block */
function show(block) {
  switch (block.type) {
    case 'heading':
      // The page has headings of its own above those of answers.
      return h(`h${Math.min(block.level + 2, 6)}`, {}, ...inlines(block.content));
    case 'fence':
      return h(
        'div',
        { class: 'fence' },
        h('div', { class: 'fence-head' }, h('span', {}, block.language), copyButton(() => block.text)),
        h('pre', { tabindex: '0' }, h('code', {}, block.text)),
      );
    case 'quote':
      return h('blockquote', {}, ...block.blocks.map(show));
    case 'list':
      return h(
        block.start === null ? 'ul' : 'ol',
        { start: block.start === 1 ? null : block.start },
        ...block.items.map((item) => h('li', {}, ...item.map(show))),
      );
    case 'table': {
      const row = (kind) => (cells) => h('tr', {}, ...cells.map((cell) => h(kind, {}, ...inlines(cell))));
      const table = h('table', {}, h('thead', {}, row('th')(block.head)), h('tbody', {}, ...block.rows.map(row('td'))));
      return h('div', { class: 'table', tabindex: '0' }, table);
    }
    case 'rule':
      return h('hr');
    default:
      return h('p', {}, ...inlines(block.content));
  }
}

/** @param {import('./markdown.js').Inline[]} parts */
function inlines(parts) {
  return parts.map((part) => {
    if (typeof part === 'string') return part;
    if (part.type === 'code') return h('code', {}, part.text);
    const attributes = part.type === 'link' ? { href: part.url, target: '_blank', rel: 'noopener noreferrer' } : {};
    return h(part.type === 'link' ? 'a' : part.type, attributes, ...inlines(part.content));
  });
}
