/** The real `clerk-sync up`, the stand-in for Clerk, and traffic as Clerk sends it. */

import { spawn } from 'node:child_process'
import { createHmac, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../', import.meta.url))
export const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target')
export const TOKEN = 'the token of the browser tests'
export const SECRET = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD'
/** A debug build on a busy machine. */
const START_TIMEOUT = 60_000

export function program(name) {
  const path = join(target, process.env.PROFILE ?? 'debug', name)
  if (!existsSync(path)) throw new Error(`${path} is not there: run scripts/test-console, or cargo build --release for PROFILE=release`)
  return path
}

/** A process, with every line that it says. */
class Running {
  said = []
  #hearers = new Set()

  constructor(name, args, environment, cwd) {
    this.child = spawn(program(name), args, { cwd, env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
    this.ended = new Promise((resolve) => this.child.once('exit', resolve))
    for (const output of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: output }).on('line', (line) => {
        this.said.push(line)
        for (const hear of this.#hearers) hear(line)
      })
    }
  }

  /** The first thing that `find` finds in a line, from the beginning. */
  async heard(find) {
    for (const line of this.said) if (find(line)) return find(line)
    return new Promise((resolve, reject) => {
      const complain = (why) => reject(new Error(`${why}:\n${this.said.join('\n')}`))
      setTimeout(() => complain('not ready in time'), START_TIMEOUT).unref()
      this.ended.then((code) => complain(`ended with ${code}`))
      this.#hearers.add((line) => find(line) && resolve(find(line)))
    })
  }

  listening(setting) {
    return this.heard((line) => {
      if (!line.startsWith('{')) return undefined
      const entry = JSON.parse(line)
      return entry.message === 'listening' && entry.setting === setting ? entry.address : undefined
    })
  }

  async stop() {
    if (this.child.exitCode !== null) return
    this.child.kill('SIGTERM')
    const kill = setTimeout(() => this.child.kill('SIGKILL'), 30_000)
    await this.ended
    clearTimeout(kill)
  }
}

/** The stand-in: sign-ups and removals that Clerk would tell of. */
class Clerk {
  constructor(environment) {
    this.environment = environment
  }

  async control(method, path, body) {
    const init = body ? { method, body: JSON.stringify(body) } : { method }
    const response = await fetch(`${this.environment.CLERK_API_URL}/_control/${path}`, init)
    if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`)
    return response.json()
  }
}

async function startClerk(folder) {
  const running = new Running('clerk-stand-in', ['--listen', '127.0.0.1:0', '--production'], {}, folder)
  const environment = {}
  await running.heard((line) => line.startsWith('# listening') || undefined)
  for (const line of running.said) {
    const [, name, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? []
    if (name) environment[name] = value.replace(/^"|"$/g, '').replaceAll('\\n', '\n')
  }
  return { running, clerk: new Clerk(environment) }
}

/** Everything, on any free ports and a folder of its own; or on the servers that the settings name. */
export class Site {
  static async start(settings = {}) {
    const site = new Site()
    site.folder = await mkdtemp(join(tmpdir(), 'clerk-sync-console-'))
    const { running, clerk } = await startClerk(site.folder)
    site.standIn = running
    site.clerk = clerk
    const { CLERK_INSTANCE_ID, ...key } = clerk.environment
    site.instance = CLERK_INSTANCE_ID
    site.settings = {
      ...key,
      CLERK_SYNC_DATA: join(site.folder, 'data'),
      CLERK_WEBHOOK_SIGNING_SECRET: SECRET,
      CONSOLE_TOKEN: TOKEN,
      RETRY_DELAYS: '300ms,1s',
      LISTEN: '127.0.0.1:0',
      ADMIN_LISTEN: '127.0.0.1:0',
      LOG_FORMAT: 'json',
      ...settings,
    }
    await site.up()
    return site
  }

  /** Starts the program, again on the same port if it was started before. */
  async up(more = {}) {
    Object.assign(this.settings, more)
    this.process = new Running('clerk-sync', ['up'], this.settings, this.folder)
    const address = await this.process.listening('LISTEN')
    this.settings.LISTEN = address
    this.origin = `http://${address}`
    const admin = await this.process.listening('ADMIN_LISTEN')
    const deadline = Date.now() + START_TIMEOUT
    while (!(await fetch(`http://${admin}/readyz`).then((answer) => answer.ok, () => false))) {
      if (Date.now() > deadline) throw new Error(`not ready:\n${this.process.said.join('\n')}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  async stop() {
    await this.process.stop()
    await this.standIn.stop()
    await rm(this.folder, { recursive: true, force: true })
  }

  /** Posts a body, signed; the status of the answer. */
  async post(body, id = `msg_${randomUUID().replaceAll('-', '').slice(0, 27)}`) {
    const at = Math.floor(Date.now() / 1000)
    const key = Buffer.from(SECRET.slice('whsec_'.length), 'base64')
    const signature = createHmac('sha256', key).update(`${id}.${at}.${body}`).digest('base64')
    const headers = { 'svix-id': id, 'svix-timestamp': String(at), 'svix-signature': `v1,${signature}` }
    const answer = await fetch(`${this.origin}/api/webhooks/clerk`, { method: 'POST', headers, body })
    return { id, status: answer.status }
  }

  event(type, data) {
    return this.post(JSON.stringify({ type, object: 'event', data, timestamp: Date.now(), instance_id: this.instance }))
  }
}

const FIRST = ['Maren', 'Jonas', 'Aiko', 'Lucía', 'Oskar', 'Priya', 'Tomás', 'Élodie', 'Samir', 'Ingrid']
const LAST = ['Halvorsen', 'Okafor', 'Tanaka', 'Lindqvist', 'Moreau', 'Castellanos', 'Banerjee', 'Weiß']
const pick = (list) => list[Math.floor(Math.random() * list.length)]

/** A user as Clerk sends it. */
export function user(id, fields = {}) {
  const now = Date.now()
  return {
    id,
    object: 'user',
    first_name: pick(FIRST),
    last_name: pick(LAST),
    image_url: `https://img.clerk.com/${id}`,
    primary_email_address_id: 'idn_1',
    email_addresses: [{ id: 'idn_1', email_address: `${id}@example.com`, verification: { status: 'verified' } }],
    created_at: now - 1000,
    updated_at: now,
    ...fields,
  }
}

/** One who cannot be given a row. */
export const nobody = (id) => user(id, { email_addresses: [], primary_email_address_id: null })

export const newId = () => `user_${randomUUID().replaceAll('-', '').slice(0, 27)}`

/** Sends events of every kind, some tens in a second, until it is stopped. */
export function traffic(site) {
  let going = true
  let sent = 0
  const known = []
  const one = async () => {
    const dice = Math.random()
    if (dice < 0.4 || known.length < 5) {
      const id = newId()
      known.push(id)
      await site.event('user.created', user(id))
    } else if (dice < 0.82) {
      await site.event('user.updated', user(pick(known)))
    } else if (dice < 0.88) {
      const id = known.shift()
      await site.event('user.deleted', { id, object: 'user', deleted: true })
    } else {
      await site.event('organization.created', { id: `org_${randomUUID().slice(0, 8)}` })
    }
    sent += 1
  }
  const lane = async () => {
    while (going) {
      await one().catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 120))
    }
  }
  const lanes = [lane(), lane(), lane()]
  return {
    get sent() {
      return sent
    },
    stop: async () => {
      going = false
      await Promise.all(lanes)
    },
  }
}
