/**
 * The Markdown of models: paragraphs, headings, lists, quotes, rules, fenced code and tables. Never fails; not all of
 * CommonMark: HTML and indented code are text, and the end of a line stays one. Knows no page.
 *
 * @typedef {import('./inline.js').Inline} Inline
 *
 * @typedef {{type: 'paragraph', content: Inline[]}
 *   | {type: 'heading', level: number, content: Inline[]}
 *   | {type: 'fence', language: string, text: string}
 *   | {type: 'list', start: number|null, items: Block[][]}
 *   | {type: 'quote', blocks: Block[]}
 *   | {type: 'table', head: Inline[][], rows: Inline[][][]}
 *   | {type: 'rule'}} Block
 *
 * @typedef {{block: Block, end: number}} Found   A block, and the line after it.
 */

import { parseInline } from './inline.js';

/** Deepest nesting of lists and quotes that is looked into; what lies deeper is a paragraph. */
const DEPTH_MAX = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,}) *([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6}) +(.*)$/;
const RULE = /^ {0,3}(?:(?:- *){3,}|(?:\* *){3,}|(?:_ *){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)| *$)/;
/** Matched without the spaces, which it would be slow to allow everywhere. */
const TABLE_RULE = /^\|?(?::?-+:?\|)*:?-+:?\|?$/;

/**
 * @param {string} text
 * @returns {Block[]}
 */
export function parse(text) {
  return blocks(text.replaceAll('\t', '    ').split(/\r\n|\r|\n/), 0);
}

function blocks(lines, depth) {
  const found = [];
  for (let at = skipBlank(lines, 0); at < lines.length; ) {
    const { block, end } = blockAt(lines, at, depth);
    found.push(block);
    at = skipBlank(lines, end);
  }
  return found;
}

function skipBlank(lines, at) {
  while (at < lines.length && lines[at].trim() === '') at += 1;
  return at;
}

/** @returns {Found} The block that begins at a line, which is not blank. */
function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence[1], fence[2]);
  const heading = HEADING.exec(line);
  if (heading) {
    const content = parseInline(heading[2].trim().replace(/ +#+$/, ''));
    return { block: { type: 'heading', level: heading[1].length, content }, end: at + 1 };
  }
  if (RULE.test(line)) return { block: { type: 'rule' }, end: at + 1 };
  if (depth < DEPTH_MAX && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEPTH_MAX && ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at);
}

/** Whether a line ends the paragraph before it. */
function begins(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  // A number at the start of a line of prose is a number, unless a list could begin with it.
  const isItem = item?.[3] !== undefined && (!/\d/.test(item[2]) || Number.parseInt(item[2], 10) === 1);
  return isItem || [FENCE, HEADING, RULE, QUOTE].some((form) => form.test(line)) || isTable(lines, at);
}

/** @returns {Found} */
function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== '' && !begins(lines, end)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trim()).join('\n');
  return { block: { type: 'paragraph', content: parseInline(text) }, end };
}

/** @returns {Found} Code up to its closing fence, or to the end while that is still to come. */
function fenced(lines, at, fence, language) {
  const indent = lines[at].search(/\S/);
  const closes = (line) => {
    const text = line.trim();
    return text.length >= fence.length && text === fence[0].repeat(text.length);
  };
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  const text = lines.slice(at + 1, end).map((line) => outdent(line, indent)).join('\n');
  return { block: { type: 'fence', language, text }, end: end + 1 };
}

/** A line without the spaces before it, of which it may have more than `by`. */
function outdent(line, by) {
  return line.slice(Math.min(line.search(/\S|$/), by));
}

/** @returns {Found} */
function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inside = lines.slice(at, end).map((line) => line.replace(QUOTE, ''));
  return { block: { type: 'quote', blocks: blocks(inside, depth + 1) }, end };
}

/** @returns {Found} */
function list(lines, at, depth) {
  const [, , marker] = ITEM.exec(lines[at]);
  const kind = marker.at(-1);
  const items = [];
  let end = at;
  for (let next = at; next < lines.length; next = skipBlank(lines, end)) {
    const item = ITEM.exec(lines[next]);
    if (item?.[2].at(-1) !== kind || RULE.test(lines[next])) break;
    const indent = item[1].length + item[2].length + (item[3]?.length ?? 1);
    end = itemEnd(lines, next, indent);
    const inside = lines.slice(next + 1, end).map((line) => outdent(line, indent));
    items.push(blocks([lines[next].slice(indent), ...inside], depth + 1));
  }
  const start = /\d/.test(marker) ? Number.parseInt(marker, 10) : null;
  return { block: { type: 'list', start, items }, end };
}

/** The line after an item: what is indented belongs to it, and prose that goes on without a blank line. */
function itemEnd(lines, at, indent) {
  let end = at + 1;
  for (;;) {
    const next = skipBlank(lines, end);
    if (next === lines.length) return end;
    // Models indent what is inside "1. " by two spaces as often as by three.
    const isIndented = lines[next].search(/\S/) >= Math.min(indent, 2);
    const isProse = next === end && !ITEM.test(lines[next]) && !begins(lines, next);
    if (!isIndented && !isProse) return end;
    end = next + 1;
  }
}

function isTable(lines, at) {
  const rule = lines[at + 1] ?? '';
  const isRule = lines[at].includes('|') && rule.includes('|') && TABLE_RULE.test(rule.replaceAll(' ', ''));
  return isRule && cells(rule).length === cells(lines[at]).length;
}

/** @returns {Found} */
function table(lines, at) {
  const head = cells(lines[at]).map(parseInline);
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes('|'); end += 1) {
    const row = cells(lines[end]);
    rows.push(head.map((_, column) => parseInline(row[column] ?? '')));
  }
  return { block: { type: 'table', head, rows }, end };
}

/** @returns {string[]} */
function cells(line) {
  const inside = line.trim().replace(/^\|/, '').replace(/(?<!\\)\|$/, '');
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll('\\|', '|'));
}
