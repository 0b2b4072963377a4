/**
 * The calls to the server that the page came from.
 */

import { SseParser } from './sse.js';

const KEY = 'tangelo.key';

/** The API key, kept only as long as the tab is open. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** An answer that is not a success. `status` is HTTP's. */
export class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = { ...(options.body && { 'Content-Type': 'application/json' }) };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new HttpError(response.status, body?.error?.message ?? `the server answers with status ${response.status}`);
}

async function get(path) {
  return (await request(path)).json();
}

/** @returns {Promise<{id: string, context_length: number}[]>} The model and its personas, by name. */
export async function models() {
  return (await get('/v1/models')).data;
}

/** @returns {Promise<{name: string, description?: string, greeting?: string}[]>} */
export async function personas() {
  const found = await get('/v1/personas');
  return Array.isArray(found) ? found : (found.data ?? []);
}

/** @returns {Promise<any>} Where the server's memory is; see `/openapi.json`. */
export function memory() {
  return get('/v1/memory');
}

/**
 * Asks for an answer and gives its chunks as they arrive. Aborting the signal closes the connection, and the server
 * stops computing.
 * @param {Object} body A chat completion with `stream`.
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 * @throws {HttpError|Error} The server refuses, or the connection ends early.
 */
export async function* chat(body, signal) {
  const response = await request('/v1/chat/completions', { method: 'POST', body: JSON.stringify(body), signal });
  const parser = new SseParser();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error('the connection ended before the answer did');
    for (const data of parser.push(value)) {
      if (data === '[DONE]') return;
      yield JSON.parse(data);
    }
  }
}
