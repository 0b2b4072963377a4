/**
 * Server-sent events, as far as an answer needs them: the data of each event. Names, ids, retry times and comments are left
 * out. The rules are those of the HTML standard, section 9.2.6, "Interpreting an event stream".
 */

/** Reads events from bytes that arrive in pieces, cut anywhere. */
export class SseParser {
  #decoder = new TextDecoder();
  #rest = '';
  #data = [];

  /**
   * @param {Uint8Array} bytes The next piece.
   * @returns {string[]} The data of the events that are complete now.
   */
  push(bytes) {
    // A carriage return at the very end may be the first half of a line end, so it waits for what follows.
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === '' && this.#data.length > 0) {
        events.push(this.#data.join('\n'));
        this.#data = [];
      } else if (line === 'data' || line.startsWith('data:')) {
        this.#data.push(line.slice('data:'.length).replace(/^ /, ''));
      }
    }
    return events;
  }
}
