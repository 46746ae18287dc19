import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { createClient } from '../src/index.js'
import { failure } from './failure.js'
import { blocks, project } from './page.js'
import { type Servers, startServers } from './servers.js'

/** The client against the real API, which asks the stand-in for Clerk. */

let servers: Servers
beforeAll(async () => {
  servers = await startServers({ INITIAL_CREDITS: '25' })
})
afterAll(async () => servers?.stop())

/** The helpers of somebody who has this token. */
const as = (token: string | null) => createClient({ url: servers.url, getToken: async () => token })

/** Somebody new, of whom no webhook has come. */
async function newcomer(fields: object) {
  const clerkId = await servers.clerk.signUp(fields)
  return { clerkId, helpers: as(await servers.clerk.token(clerkId)) }
}

test('the first page load finds a row that no webhook has brought', async () => {
  const before = Date.now()
  const { clerkId, helpers } = await newcomer({
    email: 'zoe@harbour-labs.example',
    first_name: 'Zoë',
    last_name: 'Holt-Aas',
    image_url: 'https://img.clerk.com/zoe',
  })
  const user = await helpers.getCurrentUser()
  expect(user).toEqual({
    id: expect.stringMatching(/^c[0-9a-z]{24}$/),
    clerkId,
    email: 'zoe@harbour-labs.example',
    name: 'Zoë Holt-Aas',
    imageUrl: 'https://img.clerk.com/zoe',
    createdAt: expect.any(Date),
    updatedAt: expect.any(Date),
    credits: [{ amount: 25 }],
    projects: 0,
    designs: 0,
  })
  // Clerk's time, not shifted by a time zone.
  expect(Math.abs((user?.createdAt.getTime() ?? 0) - before)).toBeLessThan(60_000)
  expect(await helpers.ensureUserInDatabase()).toEqual({ user })
})

test('components that ask at once make one fetch and see one row', async () => {
  const { helpers } = await newcomer({ email: 'crowd@harbour-labs.example' })
  const before = await servers.clerk.fetches()
  const users = await Promise.all(Array.from({ length: 50 }, () => helpers.ensureUserInDatabase()))
  expect(new Set(users.map(({ user }) => user.id)).size).toBe(1)
  expect(await servers.clerk.fetches()).toBe(before + 1)
})

test('a change is there after syncUser', async () => {
  const { clerkId, helpers } = await newcomer({ email: 'before@harbour-labs.example', first_name: 'Before' })
  const { user } = await helpers.ensureUserInDatabase()
  await servers.clerk.change(clerkId, { email: 'after@harbour-labs.example', first_name: 'After', last_name: null })
  const synced = await vi.waitFor(
    async () => {
      const synced = await helpers.syncUser()
      expect(synced.user.name).toBe('After')
      return synced
    },
    // Within SYNC_FLOOR Clerk is not asked again.
    { timeout: 60_000, interval: 200 },
  )
  expect(synced.user).toMatchObject({ id: user.id, email: 'after@harbour-labs.example', name: 'After' })
  expect(synced.user.credits).toEqual(user.credits)
  expect(await helpers.getCurrentUser()).toEqual(synced.user)
})

test('a user whom Clerk has deleted is nobody', async () => {
  const { clerkId, helpers } = await newcomer({ email: 'gone@harbour-labs.example' })
  await servers.clerk.remove(clerkId)
  expect(await helpers.getCurrentUser()).toBeNull()
  expect(await failure(helpers.ensureUserInDatabase())).toMatchObject({ status: 404, code: 'user_unknown', nobody: true })
})

describe('a token that Clerk would not take', () => {
  const now = () => Math.floor(Date.now() / 1000)
  test.each([
    ['that has expired', 'token-expired', () => servers.clerk.token('user_1', { exp: now() - 60 })],
    ['that is no token', 'token-invalid', async () => 'not.a.token'],
    ['of another key', 'token-invalid-signature', async () => swapped(await servers.clerk.token('user_1'))],
  ])('%s', async (_, code, token) => {
    const helpers = as(await token())
    expect(await helpers.getCurrentUser()).toBeNull()
    expect(await failure(helpers.ensureUserInDatabase())).toMatchObject({ status: 401, code })
  })

  /** With the first letter of its signature changed. */
  function swapped(token: string): string {
    const at = token.lastIndexOf('.') + 1
    return token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1)
  }
})

test('while Clerk is away, who is known is answered, and who is not is told when to ask again', async () => {
  const known = await newcomer({ email: 'known@harbour-labs.example' })
  const { user } = await known.helpers.ensureUserInDatabase()
  const unknown = await newcomer({ email: 'unknown@harbour-labs.example' })
  await servers.clerk.fail(1_000)
  expect(await known.helpers.getCurrentUser()).toEqual(user)
  const error = await failure(unknown.helpers.getCurrentUser())
  expect(error.transient).toBe(true)
  expect(error.status).toBeGreaterThanOrEqual(502)
  expect(error.retryAfter).toBeGreaterThan(0)
  await servers.clerk.fail(0)
  await vi.waitFor(() => unknown.helpers.ensureUserInDatabase(), { timeout: 60_000, interval: 500 })
})

test("the page's helpers work as they are written", async () => {
  const clerkId = await servers.clerk.signUp({ email: 'page@harbour-labs.example', first_name: 'Page', last_name: null })
  const session: { token: string | null } = { token: await servers.clerk.token(clerkId) }
  vi.doMock('@clerk/nextjs/server', () => ({ auth: async () => ({ getToken: async () => session.token }) }))
  vi.doMock('@clerk-sync/client', () => import('../src/index.js'))
  vi.stubEnv('CLERK_SYNC_URL', servers.url)
  const folder = await project('run', (await blocks()).slice(0, 1))
  const helpers = await import(`${folder}/lib/auth-middleware.ts`)
  expect((await helpers.ensureUserInDatabase()).user).toMatchObject({ clerkId, name: 'Page' })
  session.token = null
  expect(await helpers.getCurrentUser()).toBeNull()
})
