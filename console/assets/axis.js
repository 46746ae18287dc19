/** Where an axis has its marks, and how values are written there. */

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const small = new Intl.NumberFormat('en', { maximumFractionDigits: 2 })
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })
const MINUTE = 60_000
/** Minutes between two marks of an axis of time. */
const MINUTES = [1, 2, 5, 10, 15, 20, 30]
/** Seconds that a length of time is counted in. */
const SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800]
/** Room that a mark of time needs, in pixels. */
const ROOM = 56

export const whole = (value) => number.format(Math.round(value))
export const rate = (value) => (value >= 10 ? number : small).format(value)
export const short = (value) => (value >= 10_000 ? compact : small).format(value)
export const clock = (at) => new Date(at).toISOString().slice(11, 16)

/** Seconds, in the unit that fits. */
export function span(seconds) {
  if (seconds === 0) return '0'
  if (seconds < 0.001) return `${(seconds * 1000).toFixed(2)} ms`
  if (seconds < 0.0095) return `${number.format(seconds * 1000)} ms`
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 9.95) return `${number.format(seconds)} s`
  if (seconds < 59.5) return `${Math.round(seconds)} s`
  if (seconds < 5970) return `${number.format(Math.round(seconds / 30) / 2)} min`
  return `${number.format(Math.round(seconds / 1800) / 2)} h`
}

/** From 0 to at least `most`, some three steps of a round number. */
function steps(most, step) {
  const count = Math.ceil(most / step - 1e-9)
  return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(6)))
}

/** Marks for numbers: 1, 2 or 5, and their tens. */
export function numbers(most) {
  const rough = most / 3
  const power = 10 ** Math.floor(Math.log10(rough))
  return steps(most, [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999))
}

/** Marks for what is counted: whole. */
export function counts(most) {
  return numbers(Math.max(most, 3))
}

/** Marks for lengths of time, in seconds. */
export function spans(most) {
  return steps(most, SECONDS.find((step) => step >= most / 3) ?? 28_800)
}

/** Moments of the clock between two others, so far apart that each can be read. */
export function moments(from, to, width) {
  const minutes = MINUTES.find((step) => (width * step * MINUTE) / (to - from) >= ROOM) ?? 30
  const every = minutes * MINUTE
  const found = []
  for (let at = Math.ceil(from / every) * every; at <= to; at += every) found.push(at)
  return found
}
