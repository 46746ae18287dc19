import { Chart } from './chart.js'
import { Stream } from './stream.js'

/** Most points that are kept: an hour. */
const HOUR = 720
/** Numbers come every five seconds, later where something is away. Older ones are old. */
const PATIENCE = 25_000

/** Numbers and charts that go on by themselves. */
export function overview(section) {
  const charts = [...section.querySelectorAll('[data-chart]')].map((figure) => new Chart(figure))
  const live = document.querySelector('#live')
  const verdict = document.querySelector('#verdict')
  const said = document.querySelector('#said')
  let points = []
  let shown = ''
  let heard = new Date()
  const set = (attribute, texts) => {
    for (const [key, text] of Object.entries(texts)) {
      const place = document.querySelector(`[data-${attribute}="${key}"]`)
      if (place && place.textContent !== text) place.textContent = text
    }
  }
  const judge = ({ level, word, verdict: html }) => {
    // A link in it that somebody is at stays until he leaves.
    if (html === shown || verdict.contains(document.activeElement)) return
    if (verdict.dataset.level !== level) said.textContent = word
    verdict.dataset.level = level
    verdict.innerHTML = html
    shown = html
  }
  const message = ({ whole, points: fresh, news }) => {
    heard = new Date()
    points = (whole ? fresh : [...points, ...fresh]).slice(-HOUR)
    for (const chart of charts) chart.draw(points)
    set('now', news.now)
    set('note', news.notes)
    judge(news)
  }
  /** No green light may stay on when nobody is there to put it out. */
  const lost = () => {
    live.hidden = true
    if (verdict.dataset.level === 'lost') return
    const word = document.createElement('p')
    word.className = 'word'
    const sign = document.createElement('span')
    sign.className = 'sign'
    sign.setAttribute('aria-hidden', 'true')
    word.append(sign, 'No answer')
    const since = document.createElement('p')
    since.textContent = `The console does not answer; what is shown is of ${heard.toISOString().slice(11, 19)} UTC. It is tried again.`
    verdict.dataset.level = 'lost'
    verdict.replaceChildren(word, since)
    said.textContent = `${word.textContent}. ${since.textContent}`
    shown = ''
  }
  const on = { events: { message }, live: () => (live.hidden = false), lost }
  new Stream(() => section.dataset.stream, on, PATIENCE).start()
}
