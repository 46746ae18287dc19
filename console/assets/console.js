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

// A page that a browser has kept, against its order, may be of a session that has ended.
addEventListener('pageshow', (event) => event.persisted && location.reload())
const find = (selector) => document.querySelector(selector)
if (find('#theme')) theme(find('#theme'))
for (const form of document.querySelectorAll('form[method=post]')) once(form)
if (find('#charts')) overview(find('#charts'))
if (find('#tail')) tail(find('#tail'))
