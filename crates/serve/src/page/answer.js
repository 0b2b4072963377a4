/**
 * Puts an answer together from the chunks of a streamed chat completion, and measures it on the way. Has no clock: whoever
 * hands over a chunk says when it came.
 *
 * @typedef {Object} Stats              Times in milliseconds, counts in tokens.
 * @property {number} tokens            Of the answer.
 * @property {boolean} isEstimate       Whether `tokens` counts pieces, because the server was not heard to the end.
 * @property {number} [perSecond]       After the first token.
 * @property {number} [firstMs]         From the question to the first token.
 * @property {number} [promptTokens]
 * @property {number} [cachedTokens]    Those of the prompt that the server found in its tree of states.
 * @property {number} [reasoningTokens]
 * @property {string} [finish]          Why the answer is complete: the API's word, or `stopped`.
 */

/** Answers that arrive within less than this, in seconds, come in one packet or two, and say nothing about the speed. */
const SPAN_S_MIN = 0.05;

export class Answer {
  /** @type {import('./tree.js').Message} What has been said so far. */
  message = { role: 'assistant', content: '', reasoning: '', calls: [] };

  #asked;
  #first;
  #last;
  #pieces = 0;
  #started;
  #usage;
  #finish;

  /** @param {number} now When the question was asked, in milliseconds of any clock. */
  constructor(now) {
    this.#asked = now;
  }

  /** Whether the prompt has been read. */
  get hasStarted() {
    return this.#started !== undefined || this.#pieces > 0;
  }

  /** Whether nothing but reasoning has been said yet. */
  get isReasoning() {
    const { content, reasoning, calls } = this.message;
    return reasoning !== '' && content === '' && calls.length === 0;
  }

  /**
   * @param {any} chunk
   * @param {number} now
   * @throws {Error} The chunk says that the answer failed.
   */
  take(chunk, now) {
    if (chunk.error) throw new Error(chunk.error.message ?? 'the server gave up without a reason');
    if (chunk.tangelo) this.#started = chunk.tangelo;
    if (chunk.usage) this.#usage = chunk.usage;
    const [choice] = chunk.choices ?? [];
    if (choice?.delta) this.#takeDelta(choice.delta, now);
    if (choice?.finish_reason) {
      this.#finish = choice.finish_reason;
      this.#dropBrokenCalls();
    }
  }

  #takeDelta({ content, reasoning_content: reasoning, tool_calls: calls = [] }, now) {
    if (!content && !reasoning && calls.length === 0) return;
    this.#first ??= now;
    this.#last = now;
    this.#pieces += 1;
    this.message.content += content ?? '';
    this.message.reasoning += reasoning ?? '';
    for (const { index, id, function: called } of calls) {
      const call = (this.message.calls[index] ??= { id: '', name: '', arguments: '' });
      call.id ||= id ?? '';
      call.name ||= called?.name ?? '';
      call.arguments += called?.arguments ?? '';
    }
  }

  /** The user wants no more of it. */
  stop() {
    this.#finish = 'stopped';
    this.#dropBrokenCalls();
  }

  /** @param {string} message Why nothing more comes. */
  fail(message) {
    this.#finish = 'error';
    this.message.error = message;
    this.#dropBrokenCalls();
  }

  /** A call that was cut off could neither be answered nor sent back. */
  #dropBrokenCalls() {
    this.message.calls = this.message.calls.filter((call) => call && parsed(call.arguments || '{}') !== undefined);
  }

  /** @returns {Stats} */
  stats() {
    // A piece is a token nearly always, so their number will do until the server has counted.
    const tokens = this.#usage?.completion_tokens ?? this.#pieces;
    const seconds = (this.#last - this.#first) / 1000;
    const stats = {
      tokens,
      isEstimate: this.#usage === undefined,
      perSecond: tokens > 1 && seconds >= SPAN_S_MIN ? (tokens - 1) / seconds : undefined,
      firstMs: this.#first === undefined ? undefined : this.#first - this.#asked,
      promptTokens: this.#usage?.prompt_tokens ?? this.#started?.prompt_tokens,
      cachedTokens: this.#usage?.prompt_tokens_details?.cached_tokens ?? this.#started?.cached_tokens,
      reasoningTokens: this.#usage?.completion_tokens_details?.reasoning_tokens,
      finish: this.#finish,
    };
    return /** @type {Stats} */ (stats);
  }
}

/**
 * @param {string} text
 * @returns {any} The value of a JSON text; undefined if it is none, such as one that still grows.
 */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
