import { Chart } from './chart.js'

/** Time until a stream that was refused is tried again. */
const AGAIN = 5000
/** Most points that are kept: an hour. */
const HOUR = 720
/** Most rows of a ledger that is watched. */
const MOST_ROWS = 200

/**
 * Listens to a stream of the console. A stream that ends comes again by itself; one that is refused
 * is asked for again after a while, unless the session has ended: then the page says so.
 */
class Stream {
  #source
  #timer

  constructor(address, { open, message, rows, lost }) {
    this.address = address
    this.on = { open, message, rows, lost }
  }

  start() {
    this.stop()
    const source = new EventSource(this.address)
    this.#source = source
    source.addEventListener('open', () => this.on.open?.())
    source.addEventListener('message', (event) => this.on.message?.(JSON.parse(event.data)))
    source.addEventListener('rows', (event) => this.on.rows?.(JSON.parse(event.data)))
    source.addEventListener('error', () => {
      if (source.readyState !== EventSource.CLOSED || source !== this.#source) return
      this.on.lost?.()
      this.#look()
    })
  }

  stop() {
    clearTimeout(this.#timer)
    this.#source?.close()
    this.#source = undefined
  }

  async #look() {
    this.stop()
    try {
      const page = await fetch(location.href, { method: 'HEAD', redirect: 'manual', cache: 'no-store' })
      if (page.type === 'opaqueredirect') return signedOut()
    } catch {
      // Nobody is there; perhaps later.
    }
    this.#timer = setTimeout(() => this.start(), AGAIN)
  }
}

/** Says that the session has ended, where the page can be read still. */
function signedOut() {
  if (document.querySelector('#signed-out')) return
  const said = document.createElement('p')
  said.id = 'signed-out'
  said.className = 'notice bad'
  said.setAttribute('role', 'alert')
  const again = document.createElement('a')
  again.href = location.pathname + location.search
  again.textContent = 'Sign in again'
  said.append('Your session has ended; these numbers are old. ', again)
  document.querySelector('main').prepend(said)
}

/** The overview: numbers and charts that go on by themselves. */
export function overview(section) {
  const charts = [...section.querySelectorAll('[data-chart]')].map((figure) => new Chart(figure))
  const live = document.querySelector('#live')
  const verdict = document.querySelector('#verdict')
  let points = []
  let said = ''
  const set = (attribute, texts) => {
    for (const [key, text] of Object.entries(texts)) {
      const place = document.querySelector(`[data-${attribute}="${key}"]`)
      if (place && place.textContent !== text) place.textContent = text
    }
  }
  new Stream(section.dataset.stream, {
    open: () => (live.hidden = false),
    lost: () => (live.hidden = true),
    message: ({ whole, points: fresh, news }) => {
      points = (whole ? fresh : [...points, ...fresh]).slice(-HOUR)
      for (const chart of charts) chart.draw(points)
      set('now', news.now)
      set('note', news.notes)
      // Touched only when it says something else: a reader of the screen hears it then.
      if (news.verdict !== said) {
        if (said || verdict.dataset.level !== news.level) {
          verdict.dataset.level = news.level
          verdict.innerHTML = news.verdict
        }
        said = news.verdict
      }
    },
  }).start()
}

/** The ledger: new rows appear at its top, as long as it is watched. */
export function tail(button) {
  const rows = document.querySelector('#rows')
  const table = document.querySelector('#ledger')
  const said = document.querySelector('#said')
  const name = button.querySelector('.tail-name')
  const moment = (row) => row.querySelector('time').dateTime
  const key = (row) => row.querySelector('td:last-child a')?.textContent
  const add = ({ rows: html, count, more }) => {
    const template = document.createElement('template')
    template.innerHTML = `<table><tbody>${html}</tbody></table>`
    const fresh = [...template.content.querySelectorAll('tr')]
    const known = new Map([...rows.children].map((row) => [key(row), row]))
    let added = 0
    for (const row of fresh.reverse()) {
      const before = known.get(key(row))
      // The same moment: the page had it from the beginning.
      if (before && moment(before) === moment(row)) continue
      if (before?.contains(document.activeElement)) continue
      before?.remove()
      // Each look goes back some seconds: what is older than all that is shown belongs to another page.
      const older = [...rows.children].find((shown) => moment(shown) <= moment(row))
      if (!older && rows.children.length > 0) continue
      row.classList.add('fresh')
      rows.insertBefore(row, older ?? null)
      added += 1
    }
    while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove()
    if (added === 0) return
    document.querySelector('#empty')?.remove()
    table.hidden = false
    said.textContent = `${added} new event${added === 1 ? '' : 's'}`
    button.title = more ? `The newest ${count}; more came than can be shown` : ''
  }
  const stream = new Stream(button.dataset.stream, { rows: add })
  const show = (live) => {
    button.setAttribute('aria-pressed', String(live))
    name.textContent = live ? 'Live' : 'Paused'
    if (live) stream.start()
    else stream.stop()
  }
  button.addEventListener('click', () => show(button.getAttribute('aria-pressed') !== 'true'))
  button.hidden = false
  show(true)
}
