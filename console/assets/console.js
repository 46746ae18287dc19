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

/** A page that is not ready asks again, in its place, until it is. */
function poll(link) {
  setTimeout(async () => {
    try {
      const answer = await fetch(link.href)
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
      // No navigation: the session has ended, or the server refuses everybody.
      if (!page.querySelector('nav')) return location.replace(answer.url)
      if (answer.redirected) history.replaceState(null, '', answer.url)
      document.title = page.title
      find('main').replaceWith(page.querySelector('main'))
      find('main [autofocus]')?.focus()
      enhance(find('main'))
    } catch {
      poll(link)
    }
  }, 1000)
}

/** Gives a page, or a part that has come into it, its behaviour. */
function enhance(within) {
  for (const form of within.querySelectorAll('form[method=post]')) once(form)
  const link = within.querySelector('[data-again]')
  if (link) poll(link)
}

// A page that a browser has kept, against its order, may be of a session that has ended.
addEventListener('pageshow', (event) => event.persisted && location.reload())
const find = (selector) => document.querySelector(selector)
if (find('#theme')) theme(find('#theme'))
enhance(document)
if (find('#charts')) overview(find('#charts'))
if (find('#tail')) tail(find('#tail'))
