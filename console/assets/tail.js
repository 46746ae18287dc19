import { Stream } from './stream.js'

/** Most rows of a ledger that is watched. */
const MOST_ROWS = 200
/** Rows stay where they are for so long after the pointer has moved over them. */
const STILL = 2500
/** Time between two announcements for a reader of the screen. */
const SAY_EVERY = 15_000

/** The ledger: new rows appear at its top, as long as it is watched. */
export function tail(button) {
  const find = (id) => document.querySelector(id)
  const [rows, table, said, flood, trouble] = ['#rows', '#ledger', '#said', '#flood', '#trouble'].map(find)
  const name = button.querySelector('.tail-name')
  const moment = (row) => row.querySelector('time').dateTime
  const key = (row) => row.querySelector('td:last-child a')?.textContent
  let held = []
  let moved = -STILL
  let untold = 0
  let isLost = false
  let later, telling

  const isLive = () => button.getAttribute('aria-pressed') === 'true'
  const show = () => {
    const count = held.reduce((sum, batch) => sum + batch.count, 0)
    const text = !isLive() ? 'Paused' : isLost ? 'No answer' : count > 0 ? `Live, ${count} new` : 'Live'
    if (name.textContent !== text) name.textContent = text
  }
  const tell = (added) => {
    untold += added
    telling ??= setTimeout(() => {
      said.textContent = `${untold} new event${untold === 1 ? '' : 's'}`
      untold = 0
      telling = undefined
    }, SAY_EVERY)
  }
  const add = ({ rows: html, more }) => {
    const template = document.createElement('template')
    template.innerHTML = `<table><tbody>${html}</tbody></table>`
    const fresh = [...template.content.querySelectorAll('tr')]
    const known = new Map([...rows.children].map((row) => [key(row), row]))
    let added = 0
    for (const row of fresh.reverse()) {
      const before = known.get(key(row))
      // The same moment: the page had it from the beginning.
      if (before && moment(before) === moment(row)) continue
      before?.remove()
      // Each look goes back some seconds: what is older than all that is shown belongs to another page.
      const older = [...rows.children].find((shown) => moment(shown) <= moment(row))
      if (!older && rows.children.length > 0) continue
      row.classList.add('fresh')
      rows.insertBefore(row, older ?? null)
      added += 1
    }
    while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove()
    flood.hidden = !more
    if (added === 0) return
    document.querySelector('#empty')?.remove()
    table.hidden = false
    tell(added)
  }
  /** Nothing moves under a pointer that is about to click, or from under the keyboard. */
  const isBusy = () => performance.now() - moved < STILL || rows.contains(document.activeElement)
  const settle = () => {
    clearTimeout(later)
    if (!isLive()) return
    if (held.length > 0 && isBusy()) later = setTimeout(settle, STILL)
    else for (const batch of held.splice(0)) add(batch)
    show()
  }
  const events = {
    rows: (batch) => {
      trouble.hidden = true
      held = [...held, batch].slice(-MOST_ROWS)
      settle()
    },
    trouble: () => (trouble.hidden = false),
  }
  /** Behind the newest row that is here, so that nothing is missed after a pause. */
  const address = () => {
    const newest = rows.querySelector('time')?.dateTime
    const { stream } = button.dataset
    if (!newest) return stream
    return `${stream}${stream.includes('?') ? '&' : '?'}since=${encodeURIComponent(newest)}`
  }
  const lost = (is) => {
    isLost = is
    button.toggleAttribute('data-lost', is)
    show()
  }
  const stream = new Stream(address, { events, live: () => lost(false), lost: () => lost(true) })
  rows.addEventListener('pointermove', () => (moved = performance.now()))
  rows.addEventListener('focusout', () => setTimeout(settle))
  button.addEventListener('click', () => {
    button.setAttribute('aria-pressed', String(!isLive()))
    if (isLive()) stream.start()
    else stream.stop()
    settle()
    show()
  })
  button.hidden = false
  stream.start()
}
