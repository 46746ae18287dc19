/**
 * Each action of the console while events come in by the thousand and dead letters lie in
 * thousands, with how long each took. Not one of the tests: it measures, and a person looks at the
 * pictures (target/console-screenshots/load-*.png). `npm run load`, after `cargo build --release`;
 * with AMQP_URL and DATABASE_URL (an empty database), on RabbitMQ and PostgreSQL.
 */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { launch, open, pictures, signIn } from './browser.js'
import { SECRET, Site, newId, nobody, program, user } from './servers.js'

const RATE = Number(process.env.LOAD_RATE ?? 1000)
/** How long events come in before the console is looked at. */
const AHEAD = Number(process.env.LOAD_SECONDS ?? 60)
/** How long they go on after that at most. */
const MEANWHILE = 600
const servers = Object.fromEntries(['AMQP_URL', 'DATABASE_URL'].flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])))

function flood(site) {
  const args = ['send', '--all', '--shuffle', '--duplicate', '20', '--rate', String(RATE), '--count', String(RATE * (AHEAD + MEANWHILE))]
  const env = { CLERK_WEBHOOK_SIGNING_SECRET: SECRET, WEBHOOK_URL: `${site.origin}/api/webhooks/clerk` }
  const child = spawn(program('clerk-sync'), args, { env, stdio: 'ignore' })
  let stopping = false
  child.once('exit', (code) => stopping || console.log(`the flood ended before its time, with ${code}`))
  const ended = new Promise((resolve) => child.once('exit', resolve))
  return {
    stop: async () => {
      stopping = true
      child.kill('SIGINT')
      await ended
    },
  }
}

const site = await Site.start({ ...servers, QUEUE_PREFIX: `load${process.pid}` })
const browser = await launch()
const events = flood(site)
let failed = 0
let window

/** Does one thing, and says how long it took. */
async function act(name, use) {
  const from = performance.now()
  let result = 'ok'
  try {
    await use(window)
  } catch (error) {
    result = `FAILED: ${error.message.split('\n')[0]}`
    failed += 1
  }
  const faults = window.faults.splice(0)
  if (faults.length > 0) {
    result += ` faults: ${faults.join('; ')}`
    failed += 1
  }
  console.log(`${String(Math.round(performance.now() - from)).padStart(7)} ms  ${name}: ${result}`)
  await window.page.screenshot({ path: join(pictures, `load-${name.replace(/[^a-z]+/g, '-')}.png`) })
}

try {
  console.log(`${RATE} events a second, ${AHEAD} s before the first look, ${Object.keys(servers).length > 0 ? 'on servers' : 'on files'}`)
  const broken = await site.post('no JSON at all')
  await new Promise((resolve) => setTimeout(resolve, AHEAD * 1000))
  window = await open(browser, site)
  window.page.setDefaultTimeout(90_000)

  await act('sign in', () => signIn(window))
  await act('overview lives', async ({ page }) => {
    await page.locator('#live').waitFor()
    await page.waitForFunction(() => document.querySelectorAll('path.line').length >= 4)
    const rate = await page.locator('[data-now=rate]').innerText()
    console.log(`            ${rate} events per second; ${await page.locator('#verdict').innerText()}`)
  })
  await act('tail', async ({ page, at }) => {
    await at('/console/events')
    const first = () => page.locator('#rows tr').first().locator('td').last().innerText()
    const before = await first()
    await page.waitForFunction((before) => document.querySelector('#rows tr td:last-child').innerText !== before, before)
    await page.getByRole('button', { name: /^Live/ }).click()
    const paused = await first()
    await page.waitForTimeout(3000)
    assert.equal(await first(), paused)
  })
  const id = newId()
  const { id: made } = await site.event('user.created', user(id))
  const { id: changed } = await site.event('user.updated', user(id))
  await act('search by user', async ({ page, at }) => {
    await page.waitForTimeout(1000)
    await at(`/console/events?user=${id}`)
    await page.locator('#rows tr').nth(1).waitFor()
  })
  await act('search by user that nobody is', async ({ page, at }) => {
    await at(`/console/events?user=${newId()}`)
    await page.getByRole('link', { name: 'Search' }).or(page.getByText(/nothing|no event/i)).first().waitFor()
  })
  await act('search by outcome', async ({ page, at }) => {
    await at('/console/events?outcome=deleted')
    await page.locator('#rows tr').nth(20).waitFor()
  })
  await act('older', async ({ page, at }) => {
    await at('/console/events')
    await page.getByRole('link', { name: 'Older' }).click()
    await page.waitForURL(/before/)
    await page.locator('#rows tr').nth(20).waitFor()
  })
  await act('one event', async ({ page, at }) => {
    await at(`/console/event?id=${changed}`)
    await page.getByRole('heading', { name: 'What happened' }).waitFor()
    assert.equal(await page.locator('.timeline li').count(), 3)
  })
  await act('user by id', async ({ page, at }) => {
    await at('/console/users')
    await page.getByLabel('Clerk id or address').fill(id)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: id }).waitFor()
    await page.getByRole('link', { name: made }).waitFor()
  })
  await act('user by address', async ({ page }) => {
    await page.getByLabel('Clerk id or address').fill(`${id}@example.com`)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: id }).waitFor()
  })
  await act('fetch from clerk', async ({ page, at }) => {
    const { id } = await site.clerk.control('POST', 'users', { email: `${newId()}@harbour-labs.example` })
    await at(`/console/users?q=${id}`)
    await page.getByRole('button', { name: 'Fetch from Clerk now' }).click()
    await page.getByRole('status').getByText('a row was made').waitFor()
  })
  await act('dead letters', async ({ page, at }) => {
    await at('/console/dead-letters')
    await page.getByRole('heading', { name: 'A user without an address' }).waitFor()
    console.log(`            ${(await page.locator('main').innerText()).split('\n').slice(0, 4).join(' · ')}`)
  })
  await act('dead letters of a cause', async ({ page }) => {
    await page.getByRole('link', { name: 'A user without an address' }).click()
    await page.getByRole('link', { name: /^msg_/ }).first().waitFor()
  })
  await act('one dead letter', async ({ page, at }) => {
    await at(`/console/dead-letters/letter?id=${broken.id}`)
    await page.getByRole('heading', { name: 'Body' }).waitFor()
  })
  await act('its body', async ({ page }) => {
    await page.getByRole('button', { name: 'Show the body' }).click()
    await page.locator('pre').getByText('no JSON at all').waitFor()
  })
  await act('discard one', async ({ page }) => {
    await page.getByRole('link', { name: 'Discard…' }).click()
    await page.getByLabel('Yes, for good').check()
    await page.getByRole('button', { name: 'Discard 1 event' }).click()
    await page.getByRole('status').getByText('1 event discarded').waitFor()
  })
  const { id: last } = await site.event('user.created', nobody(newId()))
  await act('replay one, the newest', async ({ page, at, faults }) => {
    // It is behind everything that waits to be handled.
    const deadline = Date.now() + 60_000
    while ((await at(`/console/dead-letters/letter?id=${last}`)).status() === 404 && Date.now() < deadline) {
      await page.waitForTimeout(500)
    }
    faults.splice(0)
    await page.getByRole('link', { name: 'Replay…' }).click()
    await page.getByRole('button', { name: 'Replay 1 event' }).click()
    await page.getByRole('status').getByText('1 event replayed').waitFor()
  })
  let many = ''
  await act('a plan for a group', async ({ page, at }) => {
    await at('/console/dead-letters/plan?do=replay&code=missing_email')
    many = await page.getByRole('button', { name: /^Replay [\d,]+ events/ }).innerText()
    console.log(`            ${many}`)
  })
  await act('replay a group', async ({ page }) => {
    await page.getByRole('button', { name: many }).click()
    await page.getByRole('status').getByText(/events? replayed/).waitFor()
    console.log(`            ${await page.getByRole('status').innerText()}`)
  })
  await act('discard a group', async ({ page, at }) => {
    await at('/console/dead-letters')
    await at('/console/dead-letters/plan?do=discard&code=missing_email')
    await page.getByLabel('Yes, for good').check()
    await page.getByRole('button', { name: /^Discard [\d,]+ events?/ }).click()
    await page.getByRole('status').getByText(/events? discarded/).waitFor()
    console.log(`            ${await page.getByRole('status').innerText()}`)
  })
  await act('overview again', async ({ page, at }) => {
    await at('/console')
    await page.locator('#live').waitFor()
    await page.waitForFunction(() => document.querySelectorAll('path.line').length >= 4)
  })
  await act('sign out', async ({ page, at }) => {
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('Token').waitFor()
    await at('/console')
    await page.getByLabel('Token').waitFor()
  })
} finally {
  await events.stop()
  await browser.close()
  await site.stop()
}
console.log(failed > 0 ? `${failed} failed` : 'all done')
process.exitCode = failed > 0 ? 1 : 0
