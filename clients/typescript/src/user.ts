import { notTheApi } from './error.js'

/** A row of `credits`. */
export interface Credit {
  id: string
  amount: number
  createdAt: Date
  updatedAt: Date
}

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
  credits: Credit[]
  /** How many there are. */
  projects: number
  /** How many there are. */
  designs: number
}

/** JSON has no dates: they are what it has as text. */
type Wire<T> = { [K in keyof T]: T[K] extends Date ? string : T[K] extends Credit[] ? Wire<Credit>[] : T[K] }

/** Reads a row. */
export function userFrom(text: string): User {
  let row: Wire<User>
  try {
    row = JSON.parse(text) as Wire<User>
    if (typeof row.clerkId !== 'string') throw new TypeError('no clerkId')
  } catch {
    throw notTheApi('it answers 200 with something that is no row')
  }
  return { ...dated(row), credits: row.credits.map(dated) }
}

function dated<T extends { createdAt: string; updatedAt: string }>(row: T) {
  return { ...row, createdAt: new Date(row.createdAt), updatedAt: new Date(row.updatedAt) }
}
