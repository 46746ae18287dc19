/** Time until a stream that was refused is tried again. */
const AGAIN = 5000
/** A stream ends within a minute and comes again in two seconds; broken for longer, it is lost. */
const BROKEN = 10_000

/**
 * Listens to a stream of the console, while the page is seen: a browser has few connections for all
 * its windows. A stream that ends comes again by itself; one that is refused is asked for again after
 * a while, unless the session has ended: then the page says so.
 *
 * `address` makes the address each time. `on.live` is called when it works, `on.lost` when it does
 * not; where `patience` is given, also when nothing has come for so many milliseconds.
 */
export class Stream {
  #source
  #again
  #broken
  #silent
  #wanted = false

  constructor(address, on, patience) {
    this.address = address
    this.on = on
    this.patience = patience
    document.addEventListener('visibilitychange', () => this.#settle())
  }

  start() {
    this.#wanted = true
    this.#settle()
  }

  stop() {
    this.#wanted = false
    this.#settle()
  }

  #settle() {
    if (!this.#wanted || document.hidden) this.#close()
    else if (!this.#source && !this.#again) this.#open()
  }

  #open() {
    const source = new EventSource(this.address())
    this.#source = source
    source.addEventListener('open', () => this.#works())
    for (const [name, heard] of Object.entries(this.on.events)) {
      source.addEventListener(name, (event) => {
        this.#works()
        heard(JSON.parse(event.data))
      })
    }
    source.addEventListener('error', () => {
      if (source !== this.#source) return
      if (source.readyState === EventSource.CLOSED) this.#refused()
      else this.#broken ??= setTimeout(() => this.on.lost(), BROKEN)
    })
    this.#expect()
  }

  #close() {
    for (const timer of [this.#again, this.#broken, this.#silent]) clearTimeout(timer)
    this.#again = this.#broken = this.#silent = undefined
    this.#source?.close()
    this.#source = undefined
  }

  #works() {
    clearTimeout(this.#broken)
    this.#broken = undefined
    this.#expect()
    this.on.live()
  }

  #expect() {
    clearTimeout(this.#silent)
    if (this.patience) this.#silent = setTimeout(() => this.on.lost(), this.patience)
  }

  async #refused() {
    this.#close()
    this.on.lost()
    this.#again = setTimeout(() => {
      this.#again = undefined
      this.#settle()
    }, AGAIN)
    try {
      const page = await fetch(location.href, { method: 'HEAD', redirect: 'manual', cache: 'no-store' })
      if (page.type !== 'opaqueredirect') return
      this.stop()
      signedOut()
    } catch {
      // Nobody is there; perhaps later.
    }
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
  said.append('Your session has ended; what is shown is old. ', again)
  document.querySelector('main').prepend(said)
}
