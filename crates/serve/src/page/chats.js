/**
 * Conversations that outlive the page: in the browser's storage, and as files.
 *
 * @typedef {Object} Chat
 * @property {string} id
 * @property {string} title
 * @property {number} updated      Milliseconds since 1970.
 * @property {import('./settings.js').Settings} settings
 * @property {Tree} tree
 */

import { DEFAULTS, readSettings } from './settings.js';
import { Tree } from './tree.js';

const PREFIX = 'tangelo.chat.';
const FORMAT = 'tangelo-conversation';
const TITLE_CHARS = 60;

/**
 * An empty conversation.
 * @param {import('./settings.js').Settings} [settings]
 * @returns {Chat}
 */
export function newChat(settings = DEFAULTS) {
  const random = crypto.getRandomValues(new Uint32Array(2));
  const id = Date.now().toString(36) + [...random].map((part) => part.toString(36)).join('');
  return { id, title: 'New chat', updated: Date.now(), settings: { ...settings }, tree: new Tree() };
}

/**
 * The kept conversations, the latest first; what cannot be read is left out.
 * @param {Storage} storage
 * @returns {{id: string, title: string, updated: number}[]}
 */
export function listChats(storage) {
  const ids = Object.keys(storage).filter((name) => name.startsWith(PREFIX)).map((name) => name.slice(PREFIX.length));
  const chats = ids.map((id) => loadChat(storage, id)).filter(Boolean);
  return chats.sort((a, b) => b.updated - a.updated);
}

/**
 * @param {Storage} storage
 * @param {string} id
 * @returns {Chat|null}
 */
export function loadChat(storage, id) {
  try {
    const value = JSON.parse(storage.getItem(PREFIX + id));
    return { ...readChat(value), id, updated: Number(value.updated) || 0 };
  } catch {
    return null;
  }
}

/**
 * Keeps a conversation that has begun.
 * @param {Storage} storage
 * @param {Chat} chat
 * @throws {DOMException} The storage is full.
 */
export function saveChat(storage, chat) {
  if (chat.tree.root.children.length === 0) return;
  const first = chat.tree.path()[0].message.content.trim().split('\n')[0];
  chat.title = first.length > TITLE_CHARS ? `${first.slice(0, TITLE_CHARS - 1)}…` : first;
  chat.updated = Date.now();
  storage.setItem(PREFIX + chat.id, JSON.stringify({ updated: chat.updated, ...written(chat) }));
}

/**
 * @param {Storage} storage
 * @param {string} id
 */
export function removeChat(storage, id) {
  storage.removeItem(PREFIX + id);
}

/**
 * A conversation with all its branches as the text of a file.
 * @param {Chat} chat
 */
export function exportChat(chat) {
  return JSON.stringify(written(chat), null, 1);
}

/**
 * The conversation in a file.
 * @param {string} text
 * @returns {Chat}
 * @throws {Error} It is none.
 */
export function importChat(text) {
  return { ...newChat(), ...readChat(JSON.parse(text)) };
}

function written({ title, settings, tree }) {
  return { format: FORMAT, version: 1, title, settings, messages: tree };
}

function readChat(value) {
  if (value?.format !== FORMAT || value.version !== 1) throw new Error(`it is not a ${FORMAT} of version 1`);
  return {
    title: typeof value.title === 'string' ? value.title : 'Conversation',
    settings: readSettings(value.settings),
    tree: Tree.fromJSON(value.messages),
  };
}
