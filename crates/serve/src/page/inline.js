/**
 * The Markdown inside a block: emphasis, code, links. Never fails; what is no Markdown is text. Time grows with the length
 * times the depth, which is bounded, whatever the text says.
 *
 * @typedef {string
 *   | {type: 'code', text: string}
 *   | {type: 'strong'|'em'|'del', content: Inline[]}
 *   | {type: 'link', url: string, content: Inline[]}} Inline
 */

/** Deepest nesting that is looked into; what lies deeper is text. */
const DEPTH_MAX = 6;
/** Where something other than text may begin. */
const SPECIAL = /[\\`*_~[!<]|https?:\/\//g;
const LINK =
  /!?\[((?:[^[\]\\]|\\.|\[[^[\]]*\])*)\]\(\s*<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)*)>?(?:\s+"[^"]*")?\s*\)/y;
const AUTOLINK = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;
/** An address in prose ends before the punctuation of the sentence around it; brackets in pairs are its own. */
const BARE_LINK =
  /https?:\/\/(?:\([^\s<>"'`()]*\)|[^\s<>"'`.,:;!?*_~()\]]|[.,:;!?*_~\]]+(?=[^\s<>"'`.,:;!?*_~()\]]|\([^\s<>"'`()]*\)))+/y;
const SAFE_URL = /^(https?:\/\/|mailto:)/i;
const ESCAPE = /\\([!-/:-@[-`{-~])/y;
const RUN = /`+|\*+|_+|~+|[^]/y;
const MARK = /\*{1,3}|_{1,3}|~~/y;
const BACKTICKS = /`+/y;
/** What a mark means, by its length. */
const KINDS = { 1: ['em'], 2: ['strong'], 3: ['strong', 'em'] };

/**
 * @param {string} text
 * @returns {Inline[]} Without neighbours that are both text.
 */
export function parseInline(text) {
  return new Line(text, 0).read();
}

/** One text on one level of nesting. */
class Line {
  #text;
  #depth;
  /** @type {Inline[]} */
  #found = [];
  /** Marks that nothing closes from here to the end, so that no search is made in vain twice. */
  #unclosed = new Set();

  constructor(text, depth) {
    this.#text = text;
    this.#depth = depth;
  }

  read() {
    for (let at = 0; at < this.#text.length; ) {
      SPECIAL.lastIndex = at;
      const next = this.#depth > DEPTH_MAX ? null : SPECIAL.exec(this.#text);
      this.#push(this.#text.slice(at, next?.index));
      if (!next) break;
      at = this.#special(next.index);
    }
    return this.#found;
  }

  #push(inline) {
    const last = this.#found.length - 1;
    if (inline === '') return;
    if (typeof inline === 'string' && typeof this.#found[last] === 'string') this.#found[last] += inline;
    else this.#found.push(inline);
  }

  #match(pattern, at) {
    pattern.lastIndex = at;
    return pattern.exec(this.#text);
  }

  /** Takes what begins at a special sign and says where it ends. */
  #special(at) {
    const found = this.#find(at);
    if (found) {
      this.#push(found.inline);
      return found.end;
    }
    // A run is text as a whole: its tail must not be taken for a shorter mark.
    const [run] = this.#match(RUN, at);
    this.#push(run);
    return at + run.length;
  }

  #find(at) {
    switch (this.#text[at]) {
      case '\\': {
        const escape = this.#match(ESCAPE, at);
        return escape && { inline: escape[1], end: at + 2 };
      }
      case '`':
        return this.#code(at);
      case '[':
      case '!': {
        // A picture becomes a link to it: the page fetches nothing from elsewhere.
        const link = this.#match(LINK, at);
        return link && this.#link(link[2], link[1], LINK.lastIndex);
      }
      case '<': {
        const link = this.#match(AUTOLINK, at);
        return link && this.#link(link[1], '', AUTOLINK.lastIndex);
      }
      case 'h': {
        const link = this.#match(BARE_LINK, at);
        return link && this.#link(link[0], '', BARE_LINK.lastIndex);
      }
      default:
        return this.#marked(at);
    }
  }

  /** A link, if its address is of a kind that cannot run anything. */
  #link(url, label, end) {
    if (!SAFE_URL.test(url)) return null;
    // A link in a label is only its text.
    const inside = this.#nested(label).flatMap((part) => (part.type === 'link' ? part.content : [part]));
    const content = inside.length > 0 ? inside : [url];
    return { inline: { type: 'link', url, content }, end };
  }

  #nested(text) {
    return new Line(text, this.#depth + 1).read();
  }

  #code(at) {
    const [fence] = this.#match(BACKTICKS, at);
    if (this.#unclosed.has(fence)) return null;
    const start = at + fence.length;
    for (let end = this.#text.indexOf(fence, start); end >= 0; ) {
      const [run] = this.#match(BACKTICKS, end);
      if (run.length === fence.length) {
        const inside = this.#text.slice(start, end).replaceAll('\n', ' ');
        // One space on each side is there only to keep backticks apart.
        const text = /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside;
        return { inline: { type: 'code', text }, end: end + fence.length };
      }
      end = this.#text.indexOf(fence, end + run.length);
    }
    this.#unclosed.add(fence);
    return null;
  }

  /** Emphasis: a mark before a word, and the same mark after one. */
  #marked(at) {
    const [mark] = this.#match(MARK, at) ?? [''];
    const start = at + mark.length;
    const sign = mark[0];
    if (mark === '' || this.#text[start] === sign || this.#unclosed.has(mark)) return null;
    if (/^\s?$/.test(this.#text.slice(start, start + 1))) return null;
    // Underscores are parts of names more often than marks.
    if (sign === '_' && isWord(this.#text[at - 1])) return null;
    const end = this.#closing(mark, start);
    if (end < 0) {
      this.#unclosed.add(mark);
      return null;
    }
    let content = this.#nested(this.#text.slice(start, end));
    for (const type of sign === '~' ? ['del'] : [...KINDS[mark.length]].reverse()) content = [{ type, content }];
    return { inline: content[0], end: end + mark.length };
  }

  /** Where a mark is closed; -1 if it is not. */
  #closing(mark, start) {
    const text = this.#text;
    for (let end = text.indexOf(mark, start); end >= 0; ) {
      let length = mark.length;
      while (text[end + length] === mark[0]) length += 1;
      const isAfterWord = !/\s/.test(text[end - 1]);
      const isInWord = mark[0] === '_' && isWord(text[end + length]);
      if (isAfterWord && !isInWord) {
        if (length === mark.length) return end;
        // In `*a **b***` the run of three closes the inner mark first.
        if (length === 3) return end + 3 - mark.length;
      }
      end = text.indexOf(mark, end + length);
    }
    return -1;
  }
}

function isWord(sign) {
  return sign !== undefined && /[\p{L}\p{N}_]/u.test(sign);
}
