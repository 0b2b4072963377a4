/**
 * Numbers that look random and are the same each time: a linear congruential generator modulo 2^32, with the constants of
 * Numerical Recipes.
 */

/**
 * @param {number} seed
 * @returns {(bound: number) => number} Whole numbers from 0 to below `bound`.
 */
export function random(seed) {
  let state = seed >>> 0;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // The high bits are the better ones.
    return Math.floor((state / 2 ** 32) * bound);
  };
}
