/**
 * The signed-in user's row, from clerk-sync's API.
 *
 * `getCurrentUser()` and `ensureUserInDatabase()` have the names and the results that the helpers of
 * the hand-written sync had, so that pages which use them stay as they are.
 */

export { ClerkSyncError, type ErrorCode } from './error.js'
export type { User } from './user.js'

import { ClerkSyncError, errorFrom, unreachable } from './error.js'
import { type User, userFrom } from './user.js'

/** How to reach the API, and as whom. */
export interface ClientOptions {
  /** Where the API is: `CLERK_SYNC_URL`, for example `http://127.0.0.1:8080`. */
  url: string
  /**
   * The session token of whoever is signed in, or null. In Next.js: `async () => (await
   * auth()).getToken()`; in a browser: `() => window.Clerk.session?.getToken() ?? null`.
   */
  getToken: () => Promise<string | null>
  /** Longest time for an answer, in milliseconds. 10 s by default: a first sign-in asks Clerk. */
  timeout?: number
  /** In place of the global `fetch`. */
  fetch?: typeof fetch
}

/** Who is signed in, as the database has them. */
export interface Client {
  /**
   * The row of whoever is signed in, or null when nobody is, or nobody who exists any more. It is
   * there from the first request on: what no webhook has brought yet is fetched from Clerk.
   *
   * @throws {ClerkSyncError} There is no answer now: see `retryAfter`.
   */
  getCurrentUser(): Promise<User | null>
  /**
   * The row of whoever is signed in, for pages that only they can see.
   *
   * @throws {ClerkSyncError} Nobody is signed in (401), Clerk has no such user (404), or there is no
   * answer now: see `retryAfter`.
   */
  ensureUserInDatabase(): Promise<{ user: User }>
  /**
   * Fetches whoever is signed in from Clerk, applies that to the row, and returns it: after a change
   * that must be seen at once. Pages have no need of it. Clerk is asked for one user once in a while
   * (`SYNC_FLOOR`, 2 s); within it the row is as it was then.
   *
   * @throws {ClerkSyncError} As `ensureUserInDatabase`.
   */
  syncUser(): Promise<{ user: User }>
}

/** Makes the helpers. They are plain functions, which can be taken apart. */
export function createClient(options: ClientOptions): Client {
  const { getToken, timeout = 10_000 } = options
  const send = options.fetch ?? globalThis.fetch
  const base = options.url.replace(/\/+$/, '')

  async function call(method: 'GET' | 'POST', path: string): Promise<User> {
    const token = await getToken()
    if (!token) throw new ClerkSyncError(401, 'not_signed_in', 'nobody is signed in')
    let response: Response
    let text: string
    try {
      response = await send(base + path, {
        method,
        headers: { accept: 'application/json', authorization: `Bearer ${token}` },
        // The answer is about one user at one moment. Next.js, among others, would keep it.
        cache: 'no-store',
        // The token goes to this API alone.
        redirect: 'manual',
        signal: AbortSignal.timeout(timeout),
      })
      text = await response.text()
    } catch (error) {
      throw unreachable(error)
    }
    if (response.status !== 200) throw errorFrom(response, text)
    return userFrom(text)
  }

  const me = () => call('GET', '/api/users/me')

  return {
    async getCurrentUser() {
      try {
        return await me()
      } catch (error) {
        if (error instanceof ClerkSyncError && error.nobody) return null
        throw error
      }
    },
    async ensureUserInDatabase() {
      return { user: await me() }
    },
    async syncUser() {
      return { user: await call('POST', '/api/users/sync') }
    },
  }
}
