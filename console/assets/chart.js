/**
 * Charts of the last hour, drawn as SVG. No styles in attributes: the console's policy forbids them,
 * so colours are classes.
 */

const SVG = 'http://www.w3.org/2000/svg'
const HEIGHT = 168
const EDGE = { left: 54, right: 8, top: 10, bottom: 22 }
const TEN_MINUTES = 600_000
/** Rows of the table that says the same: five minutes each. */
const ROW = 300_000
/** Points that are further apart than this are not joined. */
const GAP = 30_000

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const small = new Intl.NumberFormat('en', { maximumFractionDigits: 2 })
const rate = (value) => (value >= 10 ? number : small).format(value)
const span = (seconds) => {
  if (seconds === 0) return '0'
  if (seconds < 0.001) return `${(seconds * 1000).toFixed(2)} ms`
  if (seconds < 0.0095) return `${number.format(seconds * 1000)} ms`
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 99.5) return `${number.format(seconds)} s`
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`
  return `${Math.round(seconds / 3600)} h`
}
const whole = (value) => number.format(Math.round(value))

/** What each chart shows: fields of a point, the words for them, and how their values are written. */
const SPECS = {
  rate: { least: 1, write: rate, series: [['received', 'received'], ['handled', 'handled']] },
  latency: { least: 0.01, write: span, series: [['p50', 'p50'], ['p99', 'p99']] },
  queue: { least: 4, write: whole, series: [['waiting', 'in the queue'], ['delayed', 'for another try']] },
  failures: { least: 4, write: whole, series: [['retried', 'retried'], ['dead', 'dead-lettered'], ['refused', 'refused']] },
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

/** Round numbers from 0 to at least `most`, some three of them. */
function ticks(most) {
  const rough = most / 3
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough)
  const count = Math.ceil(most / step - 1e-9)
  return Array.from({ length: count + 1 }, (_, index) => index * step)
}

const clock = (at) => new Date(at).toISOString().slice(11, 16)

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
    const steps = ticks(Math.max(spec.least, ...values) * 1.04)
    const most = steps.at(-1)
    const now = points.at(-1)?.at ?? Date.now()
    const inner = { width: this.#width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom }
    // Of the last hour, as much as there is: ten minutes at least, in whole ones.
    const watched = now - (points[0]?.at ?? now)
    const minutes = Math.min(60, Math.ceil(Math.max(watched, 1) / TEN_MINUTES) * 10)
    this.x = (at) => EDGE.left + inner.width * (1 - (now - at) / (minutes * 60_000))
    this.y = (value) => EDGE.top + inner.height * (1 - value / most)
    svg.setAttribute('viewBox', `0 0 ${this.#width} ${HEIGHT}`)
    svg.setAttribute('width', this.#width)
    svg.replaceChildren()
    for (const step of steps) {
      const y = Math.round(this.y(step)) + 0.5
      svg.append(element('line', { class: step === 0 ? 'base' : 'grid', x1: EDGE.left, x2: this.#width - EDGE.right, y1: y, y2: y }))
      svg.append(element('text', { class: 'tick', x: EDGE.left - 8, y: y + 3.5, 'text-anchor': 'end' }, spec.write(step)))
    }
    const every = Math.max(2, minutes / (inner.width < 420 ? 3 : 6))
    for (let ago = Math.floor((minutes - 1) / every) * every; ago >= 0; ago -= every) {
      const x = this.x(now - ago * 60_000)
      const anchor = ago === 0 ? 'end' : 'middle'
      svg.append(element('text', { class: 'tick', x, y: HEIGHT - 5, 'text-anchor': anchor }, ago === 0 ? 'now' : `−${small.format(ago)} min`))
    }
    for (const [place, [field]] of series.entries()) {
      for (const run of this.#runs(field)) {
        const line = run.map(({ at, value }, index) => `${index ? 'L' : 'M'}${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}`).join('')
        if (place === 0 && run.length > 1) {
          const ends = `L${this.x(run.at(-1).at).toFixed(1)} ${this.y(0)}L${this.x(run[0].at).toFixed(1)} ${this.y(0)}Z`
          svg.append(element('path', { class: 'area', d: line + ends }))
        }
        // A line of one point is a dot.
        svg.append(element('path', { class: `line s${place}`, d: run.length > 1 ? line : `${line}h0.01` }))
      }
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
    const heading = this.figure.querySelector('h2').textContent
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
