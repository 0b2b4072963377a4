/**
 * What a conversation is held with, and the request that this makes of it. Knows no page.
 *
 * @typedef {Object} Settings    Empty texts and nulls leave the choice to the server.
 * @property {string} persona
 * @property {string} system
 * @property {string} tools      A JSON list of tools as in OpenAI's API, or nothing.
 * @property {''|'none'|'required'} toolChoice
 * @property {''|'on'|'off'} thinking
 * @property {number|null} thinkingBudget   Tokens.
 * @property {number|null} temperature
 * @property {number|null} topP
 * @property {number|null} maxTokens
 */

/** @type {Settings} */
export const DEFAULTS = Object.freeze({
  persona: '',
  system: '',
  tools: '',
  toolChoice: '',
  thinking: '',
  thinkingBudget: null,
  temperature: null,
  topP: null,
  maxTokens: null,
});

/**
 * The settings in a value that may come from a stranger's file; what does not fit is left at its default.
 * @param {any} value
 * @returns {Settings}
 */
export function readSettings(value) {
  const fits = (name) => {
    const [given, standard] = [value?.[name], DEFAULTS[name]];
    return standard === null ? Number.isFinite(given) : typeof given === 'string';
  };
  return Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, fits(name) ? value[name] : DEFAULTS[name]]));
}

/**
 * The settings on a server with these personas: one that it does not have is none.
 * @param {Settings} settings
 * @param {{name: string}[]} personas
 * @returns {Settings}
 */
export function withKnownPersona(settings, personas) {
  return personas.some(({ name }) => name === settings.persona) ? settings : { ...settings, persona: '' };
}

/**
 * The tools that a text defines.
 * @param {string} text
 * @returns {Object[]}
 * @throws {Error} It is no JSON list.
 */
export function readTools(text) {
  if (text.trim() === '') return [];
  const tools = JSON.parse(text);
  if (!Array.isArray(tools)) throw new Error('it must be a list of tools: [{"type": "function", …}]');
  return tools;
}

/**
 * The body of a chat completion.
 * @param {Settings} settings
 * @param {import('./tree.js').Message[]} path The messages so far.
 * @returns {Object}
 */
export function requestBody(settings, path) {
  const messages = path.flatMap(wireMessages);
  if (settings.system.trim()) messages.unshift({ role: 'system', content: settings.system });
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  const tools = readTools(settings.tools);
  if (tools.length > 0) {
    body.tools = tools;
    if (settings.toolChoice) body.tool_choice = settings.toolChoice;
  }
  if (settings.persona) body.persona = settings.persona;
  if (settings.thinking) body.reasoning = { enabled: settings.thinking === 'on' };
  const numbers = [
    ['thinking_budget', settings.thinkingBudget],
    ['temperature', settings.temperature],
    ['top_p', settings.topP],
    ['max_completion_tokens', settings.maxTokens],
  ];
  for (const [name, value] of numbers) if (value !== null) body[name] = value;
  return body;
}

/** @param {import('./tree.js').Message} message */
function wireMessages({ role, content, reasoning, calls = [], results = [] }) {
  if (role === 'tool') return results.map(({ id, content }) => ({ role, tool_call_id: id, content }));
  if (role === 'user') return [{ role, content }];
  // An answer that failed before its first word.
  if (!content && !reasoning && calls.length === 0) return [];
  const message = { role, content };
  // The template decides how much of past reasoning the model sees; giving all of it lets the server find its states.
  if (reasoning) message.reasoning_content = reasoning;
  if (calls.length > 0) {
    message.tool_calls = calls.map(({ id, name, arguments: text }) => {
      return { id, type: 'function', function: { name, arguments: text } };
    });
  }
  return [message];
}
