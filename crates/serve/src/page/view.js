/**
 * The transcript: the messages of the path, in order, and the place where the reader is.
 */

import { Article } from './article.js';
import { Prose } from './prose.js';

/** Pixels from the end within which the transcript follows an answer that grows. */
const NEAR_END = 80;

export class View {
  /** @param {import('./article.js').Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    this.#greeting.append(this.#prose.element);
  }

  #actions;
  #scroller = document.getElementById('transcript');
  #messages = document.getElementById('messages');
  #empty = document.getElementById('empty');
  #question = document.getElementById('question');
  #greeting = document.getElementById('greeting');
  #prose = new Prose();
  #greeted = '';
  #spoken = document.getElementById('spoken');
  /** Elements are kept as long as their messages, so that what the reader has opened stays open. */
  #articles = new WeakMap();
  #spokenTo = 0;

  #article(node) {
    if (!this.#articles.has(node)) this.#articles.set(node, new Article(node, this.#actions));
    return this.#articles.get(node);
  }

  /**
   * Shows the path.
   * @param {import('./tree.js').Node[]} path
   * @param {import('./tree.js').Node|null} growing The answer that still arrives.
   */
  render(path, growing) {
    const articles = path.map((node) => this.#article(node));
    articles.forEach((article, index) => {
      article.refresh({ isLeaf: index === path.length - 1, isBusy: article.node === growing });
      const before = this.#messages.children[index];
      if (before !== article.element) this.#messages.insertBefore(article.element, before ?? null);
    });
    while (this.#messages.children.length > path.length) this.#messages.lastChild.remove();
    this.#empty.hidden = path.length > 0;
  }

  /**
   * Shows an answer as far as it is known, and says aloud what is new in it.
   * @param {import('./tree.js').Node} node
   * @param {import('./answer.js').Answer|null} answer `null` when it is complete.
   */
  grow(node, answer) {
    const follows = this.isAtEnd();
    this.#article(node).show(answer);
    if (follows) this.scrollToEnd();
    this.#speak(node.message.content, answer === null);
  }

  /**
   * Shows what the model is taken to have said before the first message.
   * @param {string} text Markdown, or nothing.
   */
  greet(text) {
    if (text === this.#greeted) return;
    this.#greeted = text;
    const follows = !this.#isEmpty() && this.isAtEnd();
    this.#prose.set(text);
    this.#greeting.hidden = text === '';
    this.#question.hidden = text !== '';
    if (follows) this.scrollToEnd();
  }

  #isEmpty() {
    return this.#messages.children.length === 0;
  }

  isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Goes to where a reader begins: the last message, or the greeting where there is none. */
  scrollToBegin() {
    if (this.#isEmpty()) this.#scroller.scrollTop = 0;
    else this.scrollToEnd();
  }

  /** A new answer begins: nothing of it has been said yet. */
  silence() {
    this.#spokenTo = 0;
    this.#spoken.textContent = '';
  }

  /** Screen readers get whole sentences: word by word they would never finish one. */
  #speak(text, isComplete) {
    const rest = text.slice(this.#spokenTo);
    const sentences = isComplete ? rest : (/^[\s\S]*[.!?:\n](?=\s)/.exec(rest)?.[0] ?? '');
    if (sentences.trim() === '') return;
    this.#spokenTo += sentences.length;
    this.#spoken.textContent = sentences;
  }

  /**
   * The message that has the focus, if one has.
   * @param {import('./tree.js').Node[]} path
   */
  focused(path) {
    return path.find((node) => this.#article(node).element.contains(document.activeElement)) ?? null;
  }

  /**
   * Puts the focus on the arrow of a message's branches, or on the other one where this is the last branch.
   * @param {import('./tree.js').Node} node
   * @param {number} by
   */
  focusStep(node, by) {
    const { element } = this.#article(node);
    const [wanted, other] = [by, -by].map((way) => element.querySelector(`[data-step="${way}"]`));
    (wanted?.disabled ? other : wanted)?.focus();
    element.scrollIntoView({ block: 'nearest' });
  }

  /**
   * Puts the focus into the first field for a tool's result, if there is one.
   * @param {import('./tree.js').Node} node
   */
  focusResults(node) {
    this.#article(node).element.querySelector('.results textarea')?.focus();
  }
}
