/** `error` in the API's answer: Clerk's own reason for a token, or the API's for everything else. */
export type ErrorCode = string

/** There is no row to give. */
export class ClerkSyncError extends Error {
  override readonly name = 'ClerkSyncError'

  constructor(
    /** The HTTP status; 0 when there was no answer. */
    readonly status: number,
    /**
     * `token-expired`, `user_deleted`, …; `not_signed_in`, `unreachable`, `unavailable`,
     * `not_the_api`.
     */
    readonly code: ErrorCode,
    message: string,
    /** After how many seconds it makes sense to ask again, where the API says so. */
    readonly retryAfter?: number,
    options?: ErrorOptions,
  ) {
    super(`clerk-sync: ${message}`, options)
  }

  /** Nobody is signed in, or nobody who exists any more. */
  get nobody(): boolean {
    // Not any 404: a path that is not there says nothing about a user.
    return this.status === 401 || this.code === 'user_deleted' || this.code === 'user_unknown'
  }

  /** Whether the same call may be answered at another time. */
  get transient(): boolean {
    return this.code === 'unreachable' || this.status === 429 || this.status >= 500
  }
}

/** From an answer that is not 200: `application/problem+json` with an `error`. */
export function errorFrom(response: Response, text: string): ClerkSyncError {
  const problem = parse(text)
  const code = problem['error']
  const { status } = response
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  const retryAfter = Number.isFinite(seconds) ? seconds : undefined
  if (typeof code !== 'string') {
    // A proxy's words for an API that is away. Its 404, though, says nothing about a user.
    if (status >= 500) return new ClerkSyncError(status, 'unavailable', `${status}`, retryAfter)
    return notTheApi(`it answers ${status} without a reason`)
  }
  const said = problem['detail'] ?? problem['title']
  const message = typeof said === 'string' ? `${said} (${status} ${code})` : `${status} ${code}`
  return new ClerkSyncError(status, code, message, retryAfter)
}

/** No connection, or no answer in time. */
export function unreachable(cause: unknown): ClerkSyncError {
  const late = cause instanceof Error && cause.name === 'TimeoutError'
  const message = late ? 'no answer in time' : 'the API cannot be reached'
  return new ClerkSyncError(0, 'unreachable', message, undefined, { cause })
}

/** Whatever is at this URL, it is not clerk-sync's API. */
export function notTheApi(what: string): ClerkSyncError {
  return new ClerkSyncError(0, 'not_the_api', `${what}; is the URL the one of clerk-sync's API?`)
}

function parse(text: string): Record<string, unknown> {
  try {
    const problem: unknown = JSON.parse(text)
    return typeof problem === 'object' && problem !== null ? { ...problem } : {}
  } catch {
    return {}
  }
}
