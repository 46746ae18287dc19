import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { createClient } from '../src/index.js'
import { failure } from './failure.js'

/** Servers that are not the API, or not in order: what clerk-sync's own never does. */

let stop: (() => void) | undefined
afterEach(() => stop?.())

async function server(answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  stop = () => {
    server.closeAllConnections()
    server.close()
  }
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const getToken = async () => 'secret-token'

test('a server that nobody runs is unreachable', async () => {
  const url = await server(() => {})
  stop?.()
  const error = await failure(createClient({ url, getToken }).getCurrentUser())
  expect(error).toMatchObject({ status: 0, code: 'unreachable', transient: true })
})

test('a server that does not answer is given up in time', async () => {
  const url = await server(() => {})
  const started = Date.now()
  const error = await failure(createClient({ url, getToken, timeout: 200 }).getCurrentUser())
  expect(error).toMatchObject({ code: 'unreachable', transient: true })
  expect(error.message).toContain('in time')
  expect(Date.now() - started).toBeLessThan(10_000)
})

test('a body that does not end is given up in time', async () => {
  const url = await server((_, response) => response.writeHead(200).write('{'))
  const error = await failure(createClient({ url, getToken, timeout: 200 }).getCurrentUser())
  expect(error).toMatchObject({ code: 'unreachable' })
})

test.each(['', 'hello', 'null', '[]', '{"clerkId":1}'])('an answer that is no row is an error: %s', async (body) => {
  const url = await server((_, response) => response.end(body))
  const error = await failure(createClient({ url, getToken }).getCurrentUser())
  expect(error).toMatchObject({ code: 'not_the_api', transient: false, nobody: false })
})

test('a 404 of another path does not mean that nobody is signed in', async () => {
  const url = await server((_, response) => response.writeHead(404).end('{"error":"not_found"}'))
  const error = await failure(createClient({ url, getToken }).getCurrentUser())
  expect(error).toMatchObject({ status: 404, code: 'not_found', nobody: false, transient: false })
})

test("another server's 404 does not mean that nobody is signed in", async () => {
  const url = await server((_, response) => response.writeHead(404).end('<html>'))
  const error = await failure(createClient({ url, getToken }).getCurrentUser())
  expect(error).toMatchObject({ code: 'not_the_api', nobody: false })
})

test("a proxy's 502 is transient", async () => {
  const url = await server((_, response) => response.writeHead(502, { 'retry-after': '7' }).end('<html>'))
  const error = await failure(createClient({ url, getToken }).getCurrentUser())
  expect(error).toMatchObject({ status: 502, code: 'unavailable', transient: true, retryAfter: 7 })
})

test('the token does not follow a redirection, and is in no message', async () => {
  const paths: (string | undefined)[] = []
  const url = await server((request, response) => {
    paths.push(request.url)
    response.writeHead(307, { location: '/elsewhere' }).end()
  })
  const error = await failure(createClient({ url, getToken }).ensureUserInDatabase())
  expect(paths).toEqual(['/api/users/me'])
  expect(`${error.stack} ${JSON.stringify(error)}`).not.toContain('secret-token')
})

test('without a token nothing is sent', async () => {
  let requests = 0
  const url = await server((_, response) => {
    requests += 1
    response.end()
  })
  const client = createClient({ url, getToken: async () => null })
  expect(await client.getCurrentUser()).toBeNull()
  expect(await failure(client.ensureUserInDatabase())).toMatchObject({ status: 401, nobody: true })
  expect(requests).toBe(0)
})
