/**
 * A conversation as a tree of messages. Editing a message or asking again never changes what was said: it makes a
 * sibling. Every node remembers which of its children is shown, so that what is shown is always one path from the root.
 * Knows neither the page nor the server.
 *
 * @typedef {Object} Call         A call of a tool by the model.
 * @property {string} id
 * @property {string} name
 * @property {string} arguments   The text of a JSON object, as the model wrote it.
 *
 * @typedef {Object} Result       What the user says that a tool gave.
 * @property {string} id          That of the call.
 * @property {string} name
 * @property {string} content
 *
 * @typedef {Object} Message
 * @property {'user'|'assistant'|'tool'} role
 * @property {string} content
 * @property {string} [reasoning]
 * @property {Call[]} [calls]
 * @property {Result[]} [results]   Of a tool message, which answers all calls of the message above it.
 * @property {string} [error]       Why an answer has no end.
 * @property {import('./answer.js').Stats} [stats]
 */

/** A message and those that were said after it. Only the root has no message and no parent. */
export class Node {
  /**
   * @param {Node|null} parent
   * @param {Message|null} message
   */
  constructor(parent, message) {
    this.parent = parent;
    this.message = message;
    /** @type {Node[]} In the order in which they were made. */
    this.children = [];
    /** @type {Node|null} The child that is shown; there is one if there are children. */
    this.shown = null;
  }
}

export class Tree {
  root = new Node(null, null);

  /**
   * Adds a message below a node and shows it.
   * @param {Node} parent
   * @param {Message} message
   * @returns {Node}
   */
  add(parent, message) {
    const node = new Node(parent, message);
    parent.children.push(node);
    show(node);
    return node;
  }

  /** @returns {Node[]} What is shown, from the first message to the last. */
  path() {
    const nodes = [];
    for (let node = this.root.shown; node; node = node.shown) nodes.push(node);
    return nodes;
  }

  /**
   * @param {Node} node
   * @returns {Node[]} From the first message to this one, shown or not.
   */
  pathTo(node) {
    const nodes = [];
    for (let at = node; at.parent; at = at.parent) nodes.unshift(at);
    return nodes;
  }

  /** @returns {Node} The last message that is shown; the root of an empty conversation. */
  leaf() {
    return this.path().at(-1) ?? this.root;
  }

  /**
   * Shows the sibling that is `by` places further.
   * @param {Node} node
   * @param {number} by
   * @returns {Node|null} It, or null if there is none.
   */
  step(node, by) {
    const { children } = node.parent;
    const sibling = children[children.indexOf(node) + by] ?? null;
    if (sibling) show(sibling);
    return sibling;
  }

  /**
   * Removes a node and all below it. Where it was shown, its neighbour is.
   * @param {Node} node Not the root.
   */
  remove(node) {
    const { parent } = node;
    const place = parent.children.indexOf(node);
    parent.children.splice(place, 1);
    if (parent.shown === node) parent.shown = parent.children[place] ?? parent.children.at(-1) ?? null;
  }

  /**
   * A list of messages in which every parent comes before its children. Flat, since a long conversation would be nested
   * deeper than some readers of JSON go.
   */
  toJSON() {
    const nodes = [this.root];
    // The list grows while it is walked.
    for (const node of nodes) nodes.push(...node.children);
    const places = new Map(nodes.map((node, place) => [node, place - 1]));
    return nodes.slice(1).map((node) => {
      return { parent: places.get(node.parent), isShown: node.parent.shown === node, ...node.message };
    });
  }

  /**
   * The tree in a value that may come from a stranger's file.
   * @param {any} value What `toJSON` gives.
   * @returns {Tree}
   * @throws {Error} It is none.
   */
  static fromJSON(value) {
    if (!Array.isArray(value)) throw new Error('it has no list of messages');
    const tree = new Tree();
    const nodes = [];
    value.forEach((entry, place) => {
      const parent = entry?.parent === -1 ? tree.root : nodes[entry?.parent];
      if (!parent) throw new Error(`message ${place} does not follow one before it`);
      const node = new Node(parent, readMessage(entry, place));
      nodes.push(node);
      parent.children.push(node);
      if (entry.isShown === true || parent.shown === null) parent.shown = node;
    });
    return tree;
  }
}

/** Makes a node part of what is shown. */
function show(node) {
  for (let at = node; at.parent; at = at.parent) at.parent.shown = at;
}

/** @returns {Message} */
function readMessage({ role, content, reasoning, calls, results, error, stats }, place) {
  const isText = (text) => typeof text === 'string';
  const areTexts = (list, ...names) => Array.isArray(list) && list.every((one) => names.every((name) => isText(one?.[name])));
  if (!['user', 'assistant', 'tool'].includes(role) || !isText(content)) {
    throw new Error(`message ${place} has no role or no content`);
  }
  const message = { role, content };
  if (isText(reasoning)) message.reasoning = reasoning;
  if (isText(error)) message.error = error;
  if (areTexts(calls, 'id', 'name', 'arguments')) message.calls = calls;
  if (areTexts(results, 'id', 'name', 'content')) message.results = results;
  if (role === 'tool' && !message.results) throw new Error(`message ${place} has no results of tools`);
  if (role === 'assistant') message.calls ??= [];
  if (stats && typeof stats === 'object') message.stats = readStats(stats);
  return message;
}

/** Keeps the numbers and words that are shown. */
function readStats(stats) {
  return Object.fromEntries(Object.entries(stats).filter(([, value]) => ['number', 'string', 'boolean'].includes(typeof value)));
}
