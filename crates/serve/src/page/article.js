/**
 * One message on the page: what it says, what it cost, and what can be done with it.
 *
 * @typedef {import('./tree.js').Node} TreeNode
 *
 * @typedef {Object} Actions      What the page does when a button of a message is used.
 * @property {(node: TreeNode, text: string) => void} edit
 * @property {(node: TreeNode) => void} regenerate
 * @property {(node: TreeNode, by: number) => void} step
 * @property {(node: TreeNode, contents: string[]) => void} giveResults   One for each call of the answer.
 * @property {(node: TreeNode, contents: string[]) => void} editResults
 */

import { parsed } from './answer.js';
import { button, copyButton, h } from './dom.js';
import { answerCost } from './numbers.js';
import { Prose } from './prose.js';

const SPEAKERS = { user: 'You', assistant: 'Answer', tool: 'Tool results' };

export class Article {
  /**
   * @param {TreeNode} node
   * @param {Actions} actions
   */
  constructor(node, actions) {
    this.node = node;
    this.#actions = actions;
    this.#body = h('div', { class: 'body' });
    this.#foot = h('div', { class: 'foot' });
    const { role } = node.message;
    this.element = h('article', { class: role }, h('h2', { class: 'hidden-text' }, SPEAKERS[role]), this.#body, this.#foot);
    if (role === 'assistant') this.#buildAnswer();
    else this.#body.append(...(role === 'tool' ? node.message.results.map(resultCard) : [h('p', {}, node.message.content)]));
  }

  #actions;
  #body;
  #foot;
  #reasoning;
  #reasoningText;
  #summary;
  #wasFolded = false;
  #prose = new Prose();
  #calls = h('div');
  #note = h('p', { class: 'error', hidden: true });

  #buildAnswer() {
    this.#summary = h('summary', { onclick: () => (this.#wasFolded = true) });
    this.#reasoningText = h('p');
    this.#reasoning = h('details', { class: 'reasoning', hidden: true }, this.#summary, this.#reasoningText);
    this.#body.append(this.#reasoning, this.#prose.element, this.#calls, this.#note);
    this.show(null);
  }

  /**
   * Shows the answer as far as it is known.
   * @param {import('./answer.js').Answer|null} answer What is still arriving; `null` when it is complete.
   */
  show(answer) {
    const { content, reasoning = '', calls = [], error } = this.node.message;
    this.element.setAttribute('aria-busy', String(answer !== null));
    this.#prose.set(content);
    this.#reasoning.hidden = reasoning === '';
    this.#reasoningText.textContent = reasoning.trim();
    const tokens = this.node.message.stats?.reasoningTokens;
    this.#summary.textContent = answer?.isReasoning ? 'Thinking…' : `Thought${tokens ? ` for ${tokens} tokens` : ''}`;
    // Folded as soon as there is something else to read, unless the reader has taken it over.
    if (!this.#wasFolded) this.#reasoning.open = content === '' && calls.length === 0;
    this.#calls.replaceChildren(...calls.map(callCard));
    this.#note.hidden = !error;
    this.#note.textContent = error ?? '';
    if (answer) this.#foot.replaceChildren(h('span', { class: 'cost' }, waiting(answer)));
  }

  /**
   * Brings what depends on the other messages up to date.
   * @param {{isLeaf: boolean, isBusy: boolean}} place Whether it is the last on the path; whether it still grows.
   */
  refresh({ isLeaf, isBusy }) {
    if (isBusy) return;
    const { node } = this;
    const { role, content, calls = [], error, stats } = node.message;
    const parts = [];
    if (node.parent.children.length > 1) parts.push(this.#branches());
    if (content) parts.push(copyButton(() => content));
    // Of an answer that failed without a word there is nothing to edit.
    if (content || !error) parts.push(button('Edit', 'Edit, as a new branch', () => this.startEdit()));
    if (role === 'assistant') {
      parts.push(button('Again', 'Another answer, as a new branch', () => this.#actions.regenerate(node)));
    } else if (isLeaf) {
      parts.push(button('Answer', 'Ask for an answer', () => this.#actions.regenerate(node)));
    }
    if (stats) parts.push(h('span', { class: 'cost' }, answerCost(stats)));
    this.#foot.replaceChildren(...parts.filter(Boolean));
    this.element.querySelector('.results')?.remove();
    if (isLeaf && calls.length > 0) this.#foot.before(this.#resultForm(calls));
  }

  #branches() {
    const siblings = this.node.parent.children;
    const place = siblings.indexOf(this.node);
    const step = (label, title, by) => {
      const element = button(label, title, () => this.#actions.step(this.node, by));
      element.dataset.step = by;
      element.disabled = !siblings[place + by];
      return element;
    };
    return h(
      'span',
      { class: 'branches', role: 'group', 'aria-label': `Branch ${place + 1} of ${siblings.length}` },
      step('‹', 'Branch before (Alt+←)', -1),
      `${place + 1}/${siblings.length}`,
      step('›', 'Next branch (Alt+→)', 1),
    );
  }

  #resultForm(calls) {
    const fields = calls.map(({ name }) => {
      return [`Result of ${name}`, h('textarea', { rows: '2', class: 'code', spellcheck: 'false' })];
    });
    const submit = () => this.#actions.giveResults(this.node, fields.map(([, field]) => field.value));
    return form('results', fields, submit, h('button', { class: 'primary' }, 'Send results'));
  }

  /** Puts fields in the place of the message until it is sent or left alone. */
  startEdit() {
    const { node } = this;
    const { role, content, results } = node.message;
    if (this.element.classList.contains('editing')) return;
    const area = (label, text) => {
      const field = h('textarea', { rows: Math.min(text.split('\n').length + 1, 16) });
      field.value = text;
      return [label, field];
    };
    const fields = results
      ? results.map((result) => area(`Result of ${result.name}`, result.content))
      : [area(role === 'user' ? 'Your message' : 'The answer', content)];
    const end = () => {
      this.element.classList.remove('editing');
      editor.remove();
    };
    const submit = () => {
      end();
      const texts = fields.map(([, field]) => field.value);
      if (results) this.#actions.editResults(node, texts);
      else if (texts[0].trim() !== '') this.#actions.edit(node, texts[0]);
    };
    const cancel = () => {
      end();
      this.#foot.querySelector('[title^="Edit"]')?.focus();
    };
    const editor = form(
      'editor',
      fields,
      submit,
      h('button', { class: 'primary' }, role === 'assistant' ? 'Keep' : 'Send'),
      button('Cancel', 'Cancel (Esc)', cancel),
    );
    editor.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      cancel();
    });
    this.element.classList.add('editing');
    this.#body.before(editor);
    fields[0][1].focus();
  }
}

/** A form of labelled text areas, in which Enter submits and Shift+Enter makes a new line. */
function form(kind, fields, submit, ...buttons) {
  const onsubmit = (event) => {
    event.preventDefault();
    submit();
  };
  const onkeydown = (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.target.tagName !== 'TEXTAREA') return;
    event.preventDefault();
    submit();
  };
  const labels = fields.map(([label, field]) => h('label', {}, label, field));
  return h('form', { class: kind, onsubmit, onkeydown }, ...labels, h('div', { class: 'row' }, ...buttons));
}

/** @param {import('./tree.js').Call} call */
function callCard({ name, arguments: text }) {
  const value = parsed(text);
  const pretty = value === undefined ? text : JSON.stringify(value, null, 2);
  return h('section', { class: 'call' }, h('h3', {}, 'Calls ', h('code', {}, name)), h('pre', { tabindex: '0' }, pretty));
}

/** @param {import('./tree.js').Result} result */
function resultCard({ name, content }) {
  return h('section', { class: 'call' }, h('h3', {}, 'Result of ', h('code', {}, name)), h('pre', { tabindex: '0' }, content));
}

/** @param {import('./answer.js').Answer} answer */
function waiting(answer) {
  if (!answer.hasStarted) return 'Reading the prompt…';
  return answerCost(answer.stats()) || 'Prompt read';
}
