/**
 * The page: one conversation at a time, and what the user does with it.
 */

import { Answer } from './answer.js';
import * as api from './api.js';
import { exportChat, importChat, listChats, loadChat, newChat, removeChat, saveChat } from './chats.js';
import { h } from './dom.js';
import { count, memoryLine } from './numbers.js';
import { Panel } from './panel.js';
import { requestBody, withKnownPersona } from './settings.js';
import { View } from './view.js';

const CURRENT = 'tangelo.current';
const prompt = document.getElementById('prompt');
const sendButton = document.getElementById('send');
const stopButton = document.getElementById('stop');

let chat = loadChat(localStorage, localStorage.getItem(CURRENT)) ?? newChat();
/** The answer that is arriving: its message, how to stop it, and when it is over. */
let growing = null;
/** Those of the server; null until it has said. */
let personas = null;
let contextTokens = 0;

const view = new View({
  edit: (node, content) => {
    const { reasoning, calls } = node.message;
    if (node.message.role === 'user') return branch(node, { role: 'user', content });
    return branch(node, { role: 'assistant', content, reasoning, calls });
  },
  regenerate: async (node) => {
    await stop();
    if (node.message.role !== 'assistant') return answer(node);
    const { parent, message } = node;
    // What failed before its first word is not worth a branch.
    if (message.error && !message.content && !message.reasoning) chat.tree.remove(node);
    return answer(parent);
  },
  step,
  giveResults: async (node, contents) => {
    await stop();
    await answer(chat.tree.add(node, toolMessage(node.message.calls, contents)));
  },
  editResults: (node, contents) => branch(node, toolMessage(node.message.results, contents)),
});

const panel = new Panel({
  change: (settings) => {
    chat.settings = settings;
    showGreeting();
    save();
  },
  changeKey: connect,
  open: async (id) => {
    await stop();
    open(loadChat(localStorage, id) ?? newChat(chat.settings));
  },
  remove: async (id) => {
    if (id === chat.id) await stop();
    removeChat(localStorage, id);
    if (id === chat.id) open(newChat(chat.settings));
    else panel.setChats(listChats(localStorage), chat.id);
  },
  exportChat: () => {
    const url = URL.createObjectURL(new Blob([exportChat(chat)], { type: 'application/json' }));
    h('a', { href: url, download: `${chat.title.replace(/[^\w-]+/g, '-').slice(0, 40)}.json` }).click();
    URL.revokeObjectURL(url);
  },
  importText: async (text) => {
    await stop();
    try {
      open(importChat(text));
      save();
    } catch (error) {
      say(`The file cannot be read as a conversation: ${error.message}`);
    }
  },
});

/** Adds a sibling of a message; one that asks for an answer gets it. */
async function branch(node, message) {
  await stop();
  const sibling = chat.tree.add(node.parent, message);
  if (message.role !== 'assistant') return answer(sibling);
  save();
  return render();
}

function toolMessage(calls, contents) {
  const results = calls.map(({ id, name }, index) => ({ id, name, content: contents[index] }));
  return { role: 'tool', content: '', results };
}

/** Asks for an answer to a message and shows it while it arrives. */
async function answer(parent) {
  let body;
  try {
    body = requestBody(chat.settings, chat.tree.pathTo(parent).map((node) => node.message));
  } catch (error) {
    render();
    return say(`The tools in the settings are malformed: ${error.message}`);
  }
  const state = new Answer(performance.now());
  const node = chat.tree.add(parent, state.message);
  const controller = new AbortController();
  growing = { node, controller, done: receive(body, state, node, controller.signal) };
  view.silence();
  render();
  view.grow(node, state);
  view.scrollToEnd();
  save();
  return growing.done;
}

async function receive(body, state, node, signal) {
  let frame = null;
  const draw = () => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      if (growing?.node === node) view.grow(node, state);
    });
  };
  try {
    for await (const chunk of api.chat(body, signal)) {
      state.take(chunk, performance.now());
      draw();
    }
  } catch (error) {
    if (signal.aborted) state.stop();
    else state.fail(error.message);
    if (error.status === 401) panel.askForKey();
    // The persona has gone since the page asked for the list.
    if (error.status === 404) connect();
  }
  cancelAnimationFrame(frame);
  node.message.stats = state.stats();
  growing = null;
  const follows = view.isAtEnd();
  view.grow(node, null);
  render();
  if (follows) view.scrollToEnd();
  if (node.message.calls.length > 0 && prompt.value === '') view.focusResults(node);
  const { promptTokens, tokens } = node.message.stats;
  if (promptTokens && contextTokens) say(`${count(promptTokens + tokens)} of ${count(contextTokens)} tokens of context`);
  save();
  showMemory();
}

/** Stops the answer that is arriving, if any, and waits until it is put away. */
async function stop() {
  if (!growing) return;
  const { controller, done } = growing;
  controller.abort();
  await done;
}

function send() {
  const content = prompt.value;
  if (content.trim() === '' || growing) return;
  prompt.value = '';
  fitPrompt();
  answer(chat.tree.add(chat.tree.leaf(), { role: 'user', content }));
}

/** Goes to the branch beside a message, keeping the focus where it is to go on from there. */
function step(node, by) {
  const hadFocus = view.focused([node]);
  const sibling = chat.tree.step(node, by);
  if (!sibling) return;
  render();
  if (hadFocus) view.focusStep(sibling, by);
  save();
}

/** Goes to another branch of the message with the focus, or else of the last that has branches. */
function stepFromKeyboard(by) {
  const path = chat.tree.path();
  const hasBranches = (node) => node.parent.children.length > 1;
  const focused = view.focused(path);
  const node = focused && hasBranches(focused) ? focused : path.findLast(hasBranches);
  if (node) step(node, by);
}

function open(other) {
  chat = other;
  dropUnknownPersona();
  panel.fill(chat.settings);
  panel.setChats(listChats(localStorage), chat.id);
  localStorage.setItem(CURRENT, chat.id);
  say('');
  render();
  view.scrollToBegin();
  prompt.focus();
}

function dropUnknownPersona() {
  if (personas) chat.settings = withKnownPersona(chat.settings, personas);
}

function save() {
  try {
    saveChat(localStorage, chat);
    localStorage.setItem(CURRENT, chat.id);
  } catch {
    say('The browser’s storage is full: export this chat and delete others');
  }
  panel.setChats(listChats(localStorage), chat.id);
}

function render() {
  view.render(chat.tree.path(), growing?.node ?? null);
  sendButton.hidden = growing !== null;
  stopButton.hidden = growing === null;
  showGreeting();
}

function showGreeting() {
  const persona = personas?.find(({ name }) => name === chat.settings.persona);
  view.greet(persona?.greeting ?? '');
}

function say(text) {
  document.getElementById('status').textContent = text;
}

async function showMemory() {
  try {
    document.getElementById('memory').textContent = memoryLine(await api.memory());
  } catch {
    document.getElementById('memory').textContent = '';
  }
}

/** Asks the server what it is. */
async function connect() {
  try {
    const models = await api.models();
    const [model] = models;
    contextTokens = model.context_length;
    document.getElementById('model').textContent = model.id;
    document.getElementById('model').title = `${count(contextTokens)} tokens of context`;
    document.title = `${model.id} · Tangelo`;
    // Personas are models too: where there is one model, there is none to ask for.
    personas = models.length > 1 ? await api.personas().catch(() => []) : [];
    dropUnknownPersona();
    panel.setPersonas(personas, chat.settings.persona);
    say('');
    render();
    showMemory();
  } catch (error) {
    say(error.status ? error.message : 'The server does not answer');
    if (error.status === 401) panel.askForKey();
  }
}

function fitPrompt() {
  prompt.style.height = 'auto';
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

async function startNew() {
  await stop();
  open(newChat(chat.settings));
}

document.getElementById('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
document.getElementById('new').addEventListener('click', startNew);
stopButton.addEventListener('click', async () => {
  await stop();
  prompt.focus();
});
prompt.addEventListener('input', fitPrompt);
prompt.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener('keydown', (event) => {
  const { key, altKey, shiftKey, target } = event;
  const isCommand = event.ctrlKey || event.metaKey;
  // In a text that has words, Alt and an arrow may mean the next one.
  const isWriting = target.tagName === 'TEXTAREA' && target.value !== '';
  if (key === 'Escape' && growing) stop();
  else if (key === 'Escape' && panel.isCovering()) panel.show(false);
  else if (isCommand && shiftKey && key.toLowerCase() === 'o') startNew();
  else if (altKey && !isCommand && key === 'ArrowLeft' && !isWriting) stepFromKeyboard(-1);
  else if (altKey && !isCommand && key === 'ArrowRight' && !isWriting) stepFromKeyboard(1);
  else return;
  event.preventDefault();
});
// What has arrived so far is kept when the page is left in the middle of an answer.
addEventListener('pagehide', () => growing && save());

panel.fill(chat.settings);
panel.setChats(listChats(localStorage), chat.id);
render();
view.scrollToEnd();
connect();
