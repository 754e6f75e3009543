// The last five minutes of the figures: kept in memory alone, and no longer.

import { isNumber } from "./words.js";

export const WINDOW_MS = 5 * 60_000;
// Answers come once a second; a clock that jumps must not fill the memory.
const SAMPLES_MAX = 400;
// Without an answer for this long there is a gap, and no line over it.
export const GAP_MS = 4_500;

export const STATUSES = ["online", "playing", "busy", "away"];
export const WAITS = ["applied", "durable", "commit", "service"];

const number = (value) => (isNumber(value) ? value : null);

// What is kept of an overview.
function sample(overview, at) {
  const byStatus = overview.players?.by_status ?? {};
  const kept = { at, all: number(overview.players?.online), acks: number(overview.rates?.acks) };
  // A status that nobody has may be left out.
  for (const status of STATUSES) kept[status] = kept.all === null ? null : (number(byStatus[status]) ?? 0);
  for (const wait of WAITS) {
    kept[`${wait}_p50`] = number(overview.latency_ms?.[wait]?.p50);
    kept[`${wait}_p99`] = number(overview.latency_ms?.[wait]?.p99);
  }
  return kept;
}

// Windows that charts show: the shortest that holds all there is.
const WINDOWS_MS = [60_000, 2 * 60_000, WINDOW_MS];

export class Past {
  samples = [];

  get window() {
    const [first, last] = [this.samples[0]?.at ?? 0, this.samples.at(-1)?.at ?? 0];
    return WINDOWS_MS.find((window) => last - first <= window) ?? WINDOW_MS;
  }

  // `at`: by the page's own clock, ms.
  add(overview, at) {
    this.samples.push(sample(overview, at));
    const kept = this.samples.findIndex((one) => at - one.at <= WINDOW_MS + GAP_MS);
    this.samples.splice(0, Math.max(kept, this.samples.length - SAMPLES_MAX, 0));
  }

  // The sample of so long ago, if there is one.
  at(ago, now) {
    let best = null;
    for (const one of this.samples) {
      const off = Math.abs(now - ago - one.at);
      if (off < GAP_MS && (best === null || off < Math.abs(now - ago - best.at))) best = one;
    }
    return best;
  }
}
