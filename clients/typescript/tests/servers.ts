import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** The real API, on a database of its own, and the stand-in for Clerk that it asks. */

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../../', import.meta.url))
/** A debug build on a busy machine. */
const START_TIMEOUT = 60_000

/** What `clerk-stand-in` can be told: see tests/stand-in/src/control.rs. */
export class StandIn {
  constructor(readonly environment: Record<string, string>) {}

  get instance(): string {
    return this.environment['CLERK_INSTANCE_ID'] ?? ''
  }

  /** A new user. Returns the id. */
  async signUp(fields: object): Promise<string> {
    return (await this.#control<{ id: string }>('POST', 'users', fields)).id
  }

  async change(id: string, fields: object): Promise<void> {
    await this.#control('PUT', `users/${id}`, fields)
  }

  async remove(id: string): Promise<void> {
    await this.#control('DELETE', `users/${id}`)
  }

  /** A session token, with these claims and header fields in place of the usual ones. */
  async token(user_id: string, claims: object = {}, header: object = {}): Promise<string> {
    const minted = await this.#control<{ token: string }>('POST', 'session-tokens', { user_id, claims, header })
    return minted.token
  }

  /** How often `GET /v1/users/{id}` was asked so far. */
  async fetches(): Promise<number> {
    return (await this.#control<{ user: number }>('GET', 'requests')).user
  }

  /** Lets the next answers fail; 0 ends that. */
  async fail(count: number, status = 503): Promise<void> {
    await this.#control('POST', 'failures', { count, status })
  }

  async #control<T>(method: string, path: string, body?: object): Promise<T> {
    const init = body ? { method, body: JSON.stringify(body) } : { method }
    const response = await fetch(`${this.environment['CLERK_API_URL']}/_control/${path}`, init)
    if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`)
    return (await response.json()) as T
  }
}

export interface Servers {
  /** `CLERK_SYNC_URL` */
  url: string
  clerk: StandIn
  stop: () => Promise<void>
}

/** Starts both, on any free ports. */
export async function startServers(settings: Record<string, string> = {}): Promise<Servers> {
  const folder = await mkdtemp(join(tmpdir(), 'clerk-sync-client-'))
  const running: ChildProcess[] = []
  const stop = async () => {
    await Promise.all(running.map(ended))
    await rm(folder, { recursive: true, force: true })
  }
  const start = (name: string, args: string[], environment: Record<string, string>) => {
    const child = spawn(program(name), args, { cwd: folder, env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
    running.push(child)
    return child
  }
  try {
    const clerk = await standIn(start('clerk-stand-in', ['--listen', '127.0.0.1:0', '--production'], {}))
    const environment = {
      ...clerk.environment,
      DATABASE_URL: `sqlite:${join(folder, 'app.db')}`,
      LISTEN: '127.0.0.1:0',
      ADMIN_LISTEN: '127.0.0.1:0',
      LOG_FORMAT: 'json',
      ...settings,
    }
    await run(program('clerk-sync'), ['migrate', 'up'], { cwd: folder, env: environment })
    const url = `http://${await listening(start('clerk-sync-api', [], environment))}`
    return { url, clerk, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

function program(name: string): string {
  const path = join(process.env['CARGO_TARGET_DIR'] ?? join(root, 'target'), 'debug', name)
  if (!existsSync(path)) {
    throw new Error(`${path} is not there: cargo build -p clerk-sync -p clerk-sync-api -p clerk-sync-stand-in`)
  }
  return path
}

/** It prints its settings, and then that it is listening. */
async function standIn(child: ChildProcess): Promise<StandIn> {
  const environment: Record<string, string> = {}
  await heard(child, 'stdout', (line) => {
    const [, name, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? []
    if (name && value) environment[name] = value.replace(/^"|"$/g, '').replaceAll('\\n', '\n')
    return line.startsWith('# listening') ? line : undefined
  })
  return new StandIn(environment)
}

/** The address that it has bound for the application's requests. */
function listening(child: ChildProcess): Promise<string> {
  return heard(child, 'stderr', (line) => {
    const entry: unknown = line.startsWith('{') ? JSON.parse(line) : {}
    const { message, setting, address } = entry as Record<string, string>
    return message === 'listening' && setting === 'LISTEN' ? address : undefined
  })
}

/** Waits for a line that has what is looked for; an end of the process is an error with all it said. */
async function heard(
  child: ChildProcess,
  stream: 'stdout' | 'stderr',
  find: (line: string) => string | undefined,
): Promise<string> {
  const said: string[] = []
  const found = new Promise<string>((resolve, reject) => {
    for (const output of ['stdout', 'stderr'] as const) {
      const input = child[output]
      if (!input) continue
      createInterface({ input }).on('line', (line) => {
        said.push(line)
        const what = output === stream ? find(line) : undefined
        if (what) resolve(what)
      })
    }
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`ended with ${code}:\n${said.join('\n')}`)))
    setTimeout(() => reject(new Error(`not ready in time:\n${said.join('\n')}`)), START_TIMEOUT).unref()
  })
  return found
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const kill = setTimeout(() => child.kill('SIGKILL'), 30_000)
  await exit
  clearTimeout(kill)
}
