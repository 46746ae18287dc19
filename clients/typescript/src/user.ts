import { notTheApi } from './error.js'

/** A row of `users`, with the names and types that Prisma gives it. */
export interface User {
  /** The row's own id, which other tables refer to. */
  id: string
  clerkId: string
  email: string
  name: string | null
  imageUrl: string | null
  createdAt: Date
  updatedAt: Date
  /**
   * The balance: a list, as Prisma has it, so that `user.credits[0]?.amount` goes on working. It has
   * one entry, the sum of all there are, or none where the application has no `credits`.
   */
  credits: { amount: number }[]
  /** How many there are; null where the application has no such table. */
  projects: number | null
  /** How many there are; null where the application has no such table. */
  designs: number | null
}

/** As the API sends it: JSON has no dates, and one number is enough for a balance. */
type Row = Omit<User, 'createdAt' | 'updatedAt' | 'credits'> & {
  createdAt: string
  updatedAt: string
  credits: number | null
}

/** Reads a row. */
export function userFrom(text: string): User {
  const row = parse(text)
  return {
    ...row,
    createdAt: new Date(row.createdAt),
    updatedAt: new Date(row.updatedAt),
    credits: row.credits === null ? [] : [{ amount: row.credits }],
  }
}

function parse(text: string): Row {
  let row: unknown
  try {
    row = JSON.parse(text)
  } catch {
    row = null
  }
  if (typeof row !== 'object' || row === null || !('clerkId' in row) || typeof row.clerkId !== 'string') {
    throw notTheApi('it answers 200 with something that is no row')
  }
  return row as Row
}
