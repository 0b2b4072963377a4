/**
 * The side panel: settings, the list of chats, files, the key; and the persona in the head of the page.
 */

import { key } from './api.js';
import { button, h } from './dom.js';
import { DEFAULTS, readTools } from './settings.js';

const PANEL_IS_OPEN = 'tangelo.panel';

/**
 * @typedef {Object} Actions
 * @property {(settings: import('./settings.js').Settings) => void} change   Settings were changed by the user.
 * @property {() => void} changeKey
 * @property {(id: string) => void} open
 * @property {(id: string) => void} remove
 * @property {() => void} exportChat
 * @property {(text: string) => void} importText
 */

export class Panel {
  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    this.#form.addEventListener('submit', (event) => event.preventDefault());
    this.#form.addEventListener('input', () => this.#changed());
    this.#persona.addEventListener('change', () => this.#changed());
    this.#toggle.addEventListener('click', () => this.show(this.#panel.hidden));
    document.getElementById('export').addEventListener('click', actions.exportChat);
    document.getElementById('import').addEventListener('click', () => this.#file.click());
    this.#file.addEventListener('change', async () => {
      const [file] = this.#file.files;
      if (file) actions.importText(await file.text());
      this.#file.value = '';
    });
    this.#key.value = key.get();
    this.#key.addEventListener('change', () => {
      key.set(this.#key.value.trim());
      actions.changeKey();
    });
    document.getElementById('access').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#key.blur();
    });
    this.show(localStorage.getItem(PANEL_IS_OPEN) === 'true' && innerWidth > 900);
  }

  #actions;
  #panel = document.getElementById('panel');
  #toggle = document.getElementById('toggle');
  #form = document.getElementById('settings');
  #persona = document.getElementById('persona');
  #chats = document.getElementById('chats');
  #file = document.getElementById('file');
  #key = document.getElementById('key');
  #toolsError = document.getElementById('tools-error');

  /** @param {boolean} isOpen */
  show(isOpen) {
    this.#panel.hidden = !isOpen;
    this.#toggle.setAttribute('aria-expanded', String(isOpen));
    localStorage.setItem(PANEL_IS_OPEN, String(isOpen));
  }

  /** Whether it lies over the transcript, as on narrow screens. */
  isCovering() {
    return !this.#panel.hidden && getComputedStyle(this.#panel).position === 'absolute';
  }

  /** Asks for the API key. */
  askForKey() {
    this.show(true);
    this.#key.focus();
  }

  /** @param {import('./settings.js').Settings} settings */
  fill(settings) {
    for (const name of Object.keys(DEFAULTS)) {
      const field = this.#field(name);
      field.value = settings[name] ?? '';
      // A persona that this server does not have is no choice.
      if (field.selectedIndex === -1) field.value = '';
    }
    this.#checkTools();
  }

  #field(name) {
    return name === 'persona' ? this.#persona : this.#form.elements[name];
  }

  #changed() {
    const values = Object.entries(DEFAULTS).map(([name, standard]) => {
      const field = this.#field(name);
      const isNumber = standard === null;
      return [name, isNumber ? (Number.isNaN(field.valueAsNumber) ? null : field.valueAsNumber) : field.value];
    });
    this.#checkTools();
    this.#actions.change(Object.fromEntries(values));
  }

  #checkTools() {
    try {
      readTools(this.#form.elements.tools.value);
      this.#toolsError.hidden = true;
    } catch (error) {
      this.#toolsError.textContent = `The tools are not used: ${error.message}`;
      this.#toolsError.hidden = false;
    }
  }

  /**
   * @param {{name: string, description?: string}[]} personas
   * @param {string} chosen
   */
  setPersonas(personas, chosen) {
    const options = personas.map(({ name, description }) => h('option', { value: name, title: description }, name));
    this.#persona.replaceChildren(h('option', { value: '' }, 'No persona'), ...options);
    this.#persona.value = personas.some(({ name }) => name === chosen) ? chosen : '';
    this.#persona.hidden = personas.length === 0;
  }

  /**
   * @param {{id: string, title: string}[]} chats
   * @param {string} current
   */
  setChats(chats, current) {
    const items = chats.map(({ id, title }) => {
      const attributes = { type: 'button', class: 'chat', onclick: () => this.#actions.open(id) };
      if (id === current) attributes['aria-current'] = 'true';
      const remove = () => confirm(`Delete “${title}”?`) && this.#actions.remove(id);
      return h('li', {}, h('button', attributes, title), button('×', `Delete “${title}”`, remove));
    });
    this.#chats.replaceChildren(...(items.length ? items : [h('li', { class: 'note' }, 'None yet.')]));
  }
}
