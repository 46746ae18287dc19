import { overview } from './overview.js'
import { tail } from './tail.js'

/** The button that goes from the system's colours to light ones, to dark ones, and back. */
function theme(button) {
  const names = { system: 'Auto', light: 'Light', dark: 'Dark' }
  const order = Object.keys(names)
  const root = document.documentElement
  const now = () => root.dataset.theme ?? 'system'
  const show = () => {
    button.querySelector('.theme-name').textContent = names[now()]
    button.setAttribute('aria-label', `Colours: ${names[now()]}. Change`)
  }
  button.addEventListener('click', () => {
    const next = order[(order.indexOf(now()) + 1) % order.length]
    if (next === 'system') delete root.dataset.theme
    else root.dataset.theme = next
    try {
      localStorage.setItem('clerk-sync-theme', next)
    } catch {
      // It lasts as long as this page, then.
    }
    show()
  })
  show()
  button.hidden = false
}

/** A form is sent once: a second press of its button does nothing. */
function once(form) {
  form.addEventListener('submit', () => {
    for (const button of form.querySelectorAll('button[type=submit]')) {
      button.setAttribute('aria-disabled', 'true')
      button.addEventListener('click', (event) => event.preventDefault())
    }
  })
}

const find = (selector) => document.querySelector(selector)
const LONGEST_WAIT = 30_000

/** Waits, and then until somebody looks. */
async function pause(time) {
  await new Promise((resolve) => setTimeout(resolve, time))
  while (document.hidden) await new Promise((resolve) => addEventListener('visibilitychange', resolve, { once: true }))
}

/** A page that is not ready asks again, in its place, until it is. */
async function poll(link, wait = 1000) {
  await pause(wait)
  const later = () => poll(link, Math.min(wait * 2, LONGEST_WAIT))
  try {
    const answer = await fetch(link.href)
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
    if (!page.querySelector('nav')) {
      // The door; or a server, or what is before it, that answers nobody now.
      return answer.redirected ? location.replace(answer.url) : later()
    }
    if (answer.redirected) history.replaceState(null, '', answer.url)
    document.title = page.title
    show(page)
  } catch {
    later()
  }
}

/** Puts what a page says into this one; where only a number has changed, only that. */
function show(page) {
  const parts = ['#main [role=status]', '#main progress']
  const [now, next] = [document, page].map((page) => parts.map((part) => page.querySelector(part)))
  const again = page.querySelector('[data-again]')
  if (again && [...now, ...next].every((part) => part)) {
    now[0].textContent = next[0].textContent
    now[1].max = next[1].max
    now[1].value = next[1].value
    poll(find('[data-again]'))
    return
  }
  const had = find('main').contains(document.activeElement)
  find('main').replaceWith(page.querySelector('main'))
  const focused = find('main [autofocus]') ?? (had ? find('main') : undefined)
  focused?.focus()
  enhance(find('main'))
}

/** Gives a page, or a part that has come into it, its behaviour. */
function enhance(within) {
  for (const form of within.querySelectorAll('form[method=post]')) once(form)
  const link = within.querySelector('[data-again]')
  if (link) poll(link)
}

// A page that a browser has kept, against its order, may be of a session that has ended.
addEventListener('pageshow', (event) => event.persisted && location.reload())
if (find('#theme')) theme(find('#theme'))
enhance(document)
if (find('#charts')) overview(find('#charts'))
if (find('#tail')) tail(find('#tail'))
