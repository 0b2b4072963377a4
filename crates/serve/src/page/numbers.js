/**
 * Numbers as people read them.
 */

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** @param {number} value */
export function count(value) {
  return whole.format(value);
}

/** @param {number} value Bytes. */
export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : count(value)} ${units[unit]}`;
}

/** @param {number} ms Milliseconds. */
export function duration(ms) {
  return ms < 1000 ? `${count(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

const ENDINGS = { length: 'cut off at the limit', stopped: 'stopped' };

/**
 * What an answer cost, in a line.
 * @param {import('./answer.js').Stats} stats
 */
export function answerCost({ tokens, isEstimate, perSecond, firstMs, promptTokens, cachedTokens, finish }) {
  const parts = [];
  if (tokens > 0) parts.push(`${isEstimate ? '≈' : ''}${count(tokens)} tokens`);
  if (perSecond) parts.push(`${perSecond < 10 ? perSecond.toFixed(1) : count(perSecond)}/s`);
  if (firstMs !== undefined) parts.push(`first token after ${duration(firstMs)}`);
  if (promptTokens !== undefined) parts.push(`prompt ${count(promptTokens)}, ${count(cachedTokens ?? 0)} cached`);
  else if (cachedTokens !== undefined) parts.push(`${count(cachedTokens)} cached`);
  if (ENDINGS[finish]) parts.push(ENDINGS[finish]);
  return parts.join(' · ');
}

/**
 * Where the server's memory is, in a line.
 * @param {any} memory The answer of `/v1/memory`.
 */
export function memoryLine({ weights, states, resident_bytes: resident }) {
  const parts = [
    `weights ${bytes(weights.bytes + weights.device_bytes)}`,
    `${count(states.kept)} states in ${bytes(states.kept_bytes)} of ${bytes(states.budget_bytes)}`,
  ];
  if (resident) parts.push(`process ${bytes(resident)}`);
  return parts.join(' · ');
}
