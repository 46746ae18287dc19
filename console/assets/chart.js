/**
 * Charts of the last hour, drawn as SVG. No styles in attributes: the console's policy forbids them,
 * so colours are classes.
 */

import { clock, counts, moments, numbers, rate, short, span, spans, whole } from './axis.js'

const SVG = 'http://www.w3.org/2000/svg'
const HEIGHT = 176
const EDGE = { left: 52, right: 18, top: 10, bottom: 24 }
const TEN_MINUTES = 600_000
/** Rows of the table that says the same: five minutes each. */
const ROW = 300_000
/** Points that are further apart than this are not joined. */
const GAP = 30_000

/** What each chart shows: fields of a point and the words for them, its marks, how values are written. */
const SPECS = {
  rate: { least: 1, marks: numbers, write: rate, series: [['received', 'received'], ['handled', 'handled']] },
  latency: { least: 0.01, marks: spans, mark: span, write: span, series: [['p50', 'median'], ['p99', '99th percentile']] },
  queue: { least: 3, marks: counts, write: whole, series: [['waiting', 'in the queue'], ['delayed', 'for another try']] },
  failures: { least: 3, marks: counts, write: whole, series: [['retried', 'put off'], ['dead', 'dead letters'], ['refused', 'refused']] },
}

const element = (name, attributes = {}, text) => {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  if (text !== undefined) made.textContent = text
  return made
}

const html = (name, className, text) => {
  const made = document.createElement(name)
  if (className) made.className = className
  if (text !== undefined) made.textContent = text
  return made
}

export class Chart {
  #points = []
  #width = 0

  constructor(figure) {
    this.figure = figure
    this.spec = SPECS[figure.dataset.chart]
    this.plot = figure.querySelector('.plot')
    this.legend = html('ul', 'legend')
    this.svg = element('svg', { role: 'img', focusable: 'false', class: 'drawing', height: HEIGHT })
    this.tip = html('div', 'tip')
    this.tip.hidden = true
    this.plot.append(this.legend, this.svg, this.tip)
    this.table = figure.querySelector('details .table-scroll')
    new ResizeObserver(() => this.#resized()).observe(this.plot)
    this.svg.addEventListener('pointermove', (event) => this.#point(event))
    this.svg.addEventListener('pointerleave', () => this.#leave())
    figure.querySelector('details').addEventListener('toggle', () => this.#tabulate())
  }

  draw(points) {
    this.#points = points
    this.#render()
    this.#tabulate()
  }

  #resized() {
    const width = Math.floor(this.plot.clientWidth)
    if (width === this.#width) return
    this.#width = width
    this.#render()
  }

  /** Series that anybody tells of. */
  #series() {
    return this.spec.series.filter(([field]) => this.#points.some((point) => point[field] !== null))
  }

  #render() {
    const { spec, svg } = this
    const points = this.#points
    if (this.#width < 80) return
    const series = this.#series()
    const values = series.flatMap(([field]) => points.map((point) => point[field] ?? 0))
    const marks = spec.marks(Math.max(spec.least, ...values))
    const most = marks.at(-1)
    const now = points.at(-1)?.at ?? Date.now()
    const inner = { width: this.#width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom }
    // Of the last hour, as much as there is: ten minutes at least, in whole ones.
    const watched = now - (points[0]?.at ?? now)
    const from = now - Math.min(6, Math.ceil(Math.max(watched, 1) / TEN_MINUTES)) * TEN_MINUTES
    this.x = (at) => EDGE.left + (inner.width * (at - from)) / (now - from)
    this.y = (value) => EDGE.top + inner.height * (1 - value / most)
    svg.setAttribute('viewBox', `0 0 ${this.#width} ${HEIGHT}`)
    svg.setAttribute('width', this.#width)
    svg.replaceChildren()
    const floor = EDGE.top + inner.height
    for (const mark of marks) {
      const y = Math.round(this.y(mark)) + 0.5
      svg.append(element('line', { class: mark === 0 ? 'base' : 'grid', x1: EDGE.left, x2: this.#width - EDGE.right, y1: y, y2: y }))
      svg.append(element('text', { class: 'tick', x: EDGE.left - 8, y: y + 3.5, 'text-anchor': 'end' }, (spec.mark ?? short)(mark)))
    }
    for (const at of moments(from, now, inner.width)) {
      const x = Math.round(this.x(at)) + 0.5
      svg.append(element('line', { class: 'base', x1: x, x2: x, y1: floor, y2: floor + 4 }))
      svg.append(element('text', { class: 'tick time', x, y: HEIGHT - 6, 'text-anchor': 'middle' }, clock(at)))
    }
    for (const [place, [field]] of series.entries()) {
      for (const run of this.#runs(field)) {
        const line = run.map(({ at, value }, index) => `${index ? 'L' : 'M'}${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}`).join('')
        if (place === 0 && run.length > 1) {
          const ends = `L${this.x(run.at(-1).at).toFixed(1)} ${floor}L${this.x(run[0].at).toFixed(1)} ${floor}Z`
          svg.append(element('path', { class: 'area', d: line + ends }))
        }
        // A line of one point is a dot.
        svg.append(element('path', { class: `line s${place}`, d: run.length > 1 ? line : `${line}h0.01` }))
      }
      const last = points.at(-1)
      if (typeof last?.[field] !== 'number') continue
      svg.append(element('circle', { class: `newest s${place}`, cx: this.x(last.at), cy: this.y(last[field]), r: 3 }))
    }
    if (series.length === 0) {
      const middle = { x: EDGE.left + inner.width / 2, y: EDGE.top + inner.height / 2 }
      svg.append(element('text', { class: 'nothing', ...middle, 'text-anchor': 'middle' }, 'nothing yet'))
    }
    this.cursor = element('line', { class: 'cursor', y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: 'hidden' })
    svg.append(this.cursor)
    this.#describe(series)
  }

  /** Points that belong together, as a line is drawn. */
  #runs(field) {
    const runs = []
    let before = -Infinity
    for (const point of this.#points) {
      const value = point[field]
      if (value === null) continue
      if (point.at - before > GAP) runs.push([])
      runs.at(-1).push({ at: point.at, value })
      before = point.at
    }
    return runs
  }

  /** The legend with the newest values, and the same in a sentence. */
  #describe(series) {
    const { spec } = this
    const last = this.#points.at(-1)
    const said = (value) => (value === null || value === undefined ? '–' : spec.write(value))
    const items = series.map(([field, name], place) => {
      const item = html('li', `s${place}`)
      item.append(html('span', 'swatch'), `${name} `, html('b', '', said(last?.[field])))
      return item
    })
    this.legend.replaceChildren(...items)
    const sentence = series.map(([field, name]) => {
      const values = this.#points.map((point) => point[field]).filter((value) => value !== null)
      return `${name} ${said(last?.[field])} now, ${said(values.length ? Math.max(...values) : null)} at most`
    })
    const heading = this.figure.querySelector('h3').textContent
    this.svg.setAttribute('aria-label', `${heading}, last hour: ${sentence.join('; ') || 'nothing yet'}`)
  }

  #point(event) {
    if (this.#points.length === 0 || !this.x) return
    const box = this.svg.getBoundingClientRect()
    const x = event.clientX - box.left
    const far = (point) => Math.abs(this.x(point.at) - x)
    const nearest = this.#points.reduce((best, point) => (far(point) < far(best) ? point : best))
    const at = this.x(nearest.at)
    this.cursor.setAttribute('x1', at)
    this.cursor.setAttribute('x2', at)
    this.cursor.setAttribute('visibility', 'visible')
    const lines = this.#series().map(([field, name]) => {
      const value = nearest[field]
      return html('span', '', `${name} ${value === null ? '–' : this.spec.write(value)}`)
    })
    this.tip.replaceChildren(html('b', '', `${new Date(nearest.at).toISOString().slice(11, 19)} UTC`), ...lines)
    this.tip.hidden = false
    const left = Math.min(Math.max(at - this.tip.offsetWidth / 2, 0), this.#width - this.tip.offsetWidth)
    this.tip.style.left = `${left}px`
  }

  #leave() {
    this.tip.hidden = true
    this.cursor?.setAttribute('visibility', 'hidden')
  }

  /** The same numbers, the newest first: the last point of each five minutes. Made when opened. */
  #tabulate() {
    if (!this.figure.querySelector('details').open) return
    const series = this.#series()
    const rows = new Map()
    for (const point of this.#points) rows.set(Math.floor(point.at / ROW), point)
    const table = html('table', 'small')
    const head = table.createTHead().insertRow()
    for (const name of ['Until, UTC', ...series.map(([, name]) => name)]) {
      const cell = html('th', name === 'Until, UTC' ? '' : 'number', name)
      cell.scope = 'col'
      head.append(cell)
    }
    const body = table.createTBody()
    for (const point of [...rows.values()].reverse()) {
      const row = body.insertRow()
      const time = html('th', '', clock(point.at))
      time.scope = 'row'
      row.append(time)
      for (const [field] of series) {
        const value = point[field]
        row.append(html('td', 'number', value === null ? '–' : this.spec.write(value)))
      }
    }
    this.table.replaceChildren(table)
  }
}
