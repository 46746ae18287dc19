import { ClerkSyncError } from '../src/index.js'

/** The error that a call ends with. */
export async function failure(call: Promise<unknown>): Promise<ClerkSyncError> {
  const error: unknown = await call.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (!(error instanceof ClerkSyncError)) throw new Error(`not a ClerkSyncError: ${error}`)
  return error
}
