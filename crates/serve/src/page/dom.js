/**
 * Elements from values. Text becomes text nodes and never markup, so nothing that a model says can act.
 */

/**
 * Makes an element.
 * @param {string} name
 * @param {Object<string, any>} [attributes] Functions are listeners (`onclick`), null and undefined are left out, `true` is
 *   an attribute without a value.
 * @param {...(Element|string|null)} children Null is left out.
 * @returns {HTMLElement}
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key.slice('on'.length), value);
    else if (value === true) element.setAttribute(key, '');
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * A button of the kind that stays in the background.
 * @param {string} label
 * @param {string} title What it does, for those who point at it or hear it.
 * @param {() => void} onclick
 */
export function button(label, title, onclick) {
  // A label of one sign says nothing when it is read aloud.
  const spoken = label.length === 1 ? { 'aria-label': title } : {};
  return h('button', { type: 'button', class: 'quiet', title, onclick, ...spoken }, label);
}

/** How long a button says what became of a copy, in milliseconds. */
const COPIED_MS = 1500;

/**
 * A button that copies a text; null where the browser lets no page do that, as over plain HTTP from another machine.
 * @param {() => string} text
 */
export function copyButton(text) {
  if (!navigator.clipboard) return null;
  const copy = button('Copy', 'Copy', async () => {
    const isCopied = await navigator.clipboard.writeText(text()).then(() => true, () => false);
    copy.textContent = isCopied ? 'Copied' : 'Not allowed';
    setTimeout(() => (copy.textContent = 'Copy'), COPIED_MS);
  });
  return copy;
}
