/** Each action of the console, by hand as it were, while events come in. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { accessible, fits, launch, open, signIn } from './browser.js'
import { Site, newId, nobody, traffic, user } from './servers.js'

let site, browser, events

before(async () => {
  site = await Site.start()
  browser = await launch()
  events = traffic(site)
})

after(async () => {
  await events?.stop()
  await browser?.close()
  await site?.stop()
})

/** Runs in a window of its own, signed in, and looks for faults afterwards. */
function inWindow(name, use, options) {
  test(name, async () => {
    const window = await open(browser, site, options)
    try {
      await signIn(window)
      await use(window)
      assert.deepEqual(window.faults, [])
    } finally {
      await window.context.close()
    }
  })
}

const text = (page, selector) => page.locator(selector).innerText()

test('the door: a wrong token is told, the right one opens, and out is out', async () => {
  const window = await open(browser, site)
  const { page, at, faults, context } = window
  await at('/console/events?outcome=created')
  assert.match(page.url(), /\/console\/login\?next=/)
  await accessible(page, 'the door')
  await page.getByLabel('Token').fill('certainly not this')
  await page.keyboard.press('Enter')
  await page.getByRole('alert').getByText('That is not the token').waitFor()
  assert.equal(await page.evaluate(() => document.activeElement.id), 'token')
  await accessible(page, 'the door, refused')
  // The browser itself tells of the 401.
  assert.deepEqual(faults.splice(0).filter((fault) => !fault.includes('401')), [])
  await signIn(window)
  const [cookie] = await context.cookies()
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, 'Strict', '/console'])
  assert.equal(await page.evaluate(() => document.cookie), '', 'no script sees it')
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByLabel('Token').waitFor()
  await at('/console')
  await page.getByLabel('Token').waitFor()
  assert.deepEqual(faults, [])
  await context.close()
})

inWindow('the overview: numbers, charts and the verdict go on by themselves', async ({ page }) => {
  await page.locator('#live').waitFor()
  await page.waitForFunction(() => document.querySelectorAll('path.line').length >= 4)
  const received = async () => Number((await text(page, '[data-note=success]')).match(/of ([\d,]+) webhooks/)?.[1].replaceAll(',', '') ?? 0)
  const first = await received()
  await page.waitForFunction((first) => {
    const found = document.querySelector('[data-note=success]').textContent.match(/of ([\d,]+) webhooks/)
    return found && Number(found[1].replaceAll(',', '')) > first
  }, first)
  assert.equal(await text(page, '[data-now=success]'), '100 %')
  assert.match(await text(page, '[data-now=latency]'), /ms|s/)
  const chart = page.getByRole('img', { name: /^Events per second, last hour: received [\d.]+ now/ })
  await chart.hover({ position: { x: 500, y: 60 } })
  await page.locator('[data-chart=rate] .tip').getByText('UTC').waitFor()
  await page.locator('[data-chart=rate] summary').click()
  await page.locator('[data-chart=rate] table tbody tr').first().waitFor()
  await accessible(page, 'the overview')
})

inWindow('the charts: round moments of the clock, whole counts, and nothing cut off', async ({ page }) => {
  for (const width of [1440, 390]) {
    await page.setViewportSize({ width, height: 900 })
    await page.waitForFunction(() => document.querySelectorAll('.tick.time').length >= 8)
    const charts = await page.locator('[data-chart]').evaluateAll((figures) =>
      figures.map((figure) => {
        const drawing = figure.querySelector('svg').getBoundingClientRect()
        const boxes = (selector) =>
          [...figure.querySelectorAll(selector)].map((tick) => {
            const { left, right } = tick.getBoundingClientRect()
            return { text: tick.textContent, left: left - drawing.left, right: drawing.right - right, from: left, to: right }
          })
        return { name: figure.dataset.chart, times: boxes('.tick.time'), values: boxes('.tick:not(.time)') }
      }),
    )
    for (const { name, times, values } of charts) {
      const where = `${name}, ${width}: ${JSON.stringify(times)}`
      for (const { text } of times) assert.match(text, /^([01]\d|2[0-3]):[0-5]\d$/, where)
      for (const { left, right } of [...times, ...values]) assert.ok(left >= 0 && right >= 0, where)
      for (const [place, time] of times.entries()) if (place > 0) assert.ok(time.from >= times[place - 1].to + 8, where)
      if (['queue', 'failures'].includes(name)) for (const { text } of values) assert.match(text, /^\d+$/, name)
    }
  }
})

inWindow('a window that nobody sees lets go, and misses nothing', async ({ page, at }) => {
  const id = newId()
  await site.event('user.created', user(id))
  let streams = 0
  page.on('request', (request) => (streams += request.url().includes('/events/stream') ? 1 : 0))
  await at(`/console/events?user=${id}`)
  await page.locator('#rows tr').first().waitFor()
  assert.equal(streams, 1)
  const see = (hidden) =>
    page.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, hidden)
  await see(true)
  const { id: missed } = await site.event('user.updated', user(id))
  // Longer than a look goes back.
  await page.waitForTimeout(15_000)
  assert.equal(await page.getByRole('link', { name: missed }).count(), 0)
  assert.equal(streams, 1, 'it does not come again')
  await see(false)
  await page.getByRole('link', { name: missed }).waitFor()
})

inWindow('the ledger stands still under a pointer that moves, and goes on', async ({ page, at }) => {
  await at('/console/events')
  await page.locator('#rows tr').nth(5).waitFor()
  await page.getByRole('button', { name: /^Live$/ }).waitFor()
  const first = () => page.locator('#rows tr').first().locator('td').last().innerText()
  await page.locator('#rows tr').nth(3).hover()
  const before = await first()
  const until = Date.now() + 5000
  while (Date.now() < until) {
    await page.mouse.move(400 + (Date.now() % 7), 400)
    await page.waitForTimeout(200)
    assert.equal(await first(), before, 'it moved')
  }
  await page.getByRole('button', { name: /^Live, \d+ new$/ }).waitFor()
  await page.waitForFunction((before) => document.querySelector('#rows tr td:last-child').innerText !== before, before)
  await page.getByRole('button', { name: /^Live$/ }).waitFor()
})

inWindow('by the keyboard: the first stop skips to the content, and every link is reached', async ({ page, at }) => {
  await at('/console')
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content')
  await page.keyboard.press('Enter')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main')
  await at('/console')
  const reached = new Set()
  for (let stop = 0; stop < 12; stop += 1) {
    await page.keyboard.press('Tab')
    reached.add(await page.evaluate(() => document.activeElement.textContent.trim()))
  }
  for (const name of ['Overview', 'Events', 'Dead letters', 'Users', 'Sign out']) assert.ok(reached.has(name), name)
})

inWindow('the ledger: new events appear, can be paused, searched and followed', async ({ page, at }) => {
  await at('/console/events')
  const first = () => page.locator('#rows tr').first().locator('td').last().innerText()
  const before = await first()
  await page.waitForFunction((before) => document.querySelector('#rows tr td:last-child').innerText !== before, before)
  await page.getByRole('button', { name: 'Live' }).click()
  const paused = await first()
  await page.waitForTimeout(3000)
  assert.equal(await first(), paused, 'it is paused')
  await accessible(page, 'the ledger')

  const id = newId()
  await site.event('user.created', user(id))
  const { id: event } = await site.event('user.updated', user(id))
  await page.waitForTimeout(500)
  await page.getByLabel('User').fill(id)
  await page.getByRole('button', { name: 'Search' }).click()
  await page.getByRole('link', { name: 'Clear' }).waitFor()
  assert.equal(await page.locator('#rows tr').count(), 2)
  await page.getByRole('link', { name: event }).click()
  await page.getByRole('heading', { name: 'What happened' }).waitFor()
  assert.equal(await page.locator('.timeline li').count(), 3)
  await accessible(page, 'an event')

  await at('/console/events?outcome=ignored')
  await page.locator('#rows tr').first().waitFor()

  // As many as fill a page have come by now.
  await at('/console/events')
  const newest = await first()
  await page.getByRole('link', { name: 'Older' }).click()
  await page.waitForFunction((newest) => document.querySelector('#rows tr td:last-child')?.innerText !== newest, newest)
})

inWindow('dead letters: one opened, one and a group replayed, one discarded', async ({ page, at }) => {
  const ids = [newId(), newId(), newId()]
  const letters = []
  for (const id of ids) letters.push((await site.event('user.created', nobody(id))).id)
  const broken = await site.post('no JSON at all')
  await page.waitForTimeout(1500)

  await at('/console/dead-letters')
  await page.getByRole('heading', { name: 'A user without an address' }).waitFor()
  await accessible(page, 'dead letters')
  await page.getByRole('link', { name: 'A user without an address' }).click()
  await page.getByRole('link', { name: letters[0] }).click()
  await page.getByRole('heading', { name: 'Body' }).waitFor()
  assert.equal(await page.locator('pre').count(), 0, 'it is hidden until asked for')
  await accessible(page, 'a letter')
  await page.getByRole('button', { name: 'Show the body' }).click()
  await page.locator('pre').getByText(ids[0]).waitFor()
  const said = site.process.said.filter((line) => line.includes('was opened in the console'))
  assert.equal(said.length, 1)
  assert.ok(said[0].includes(letters[0]) && !said[0].includes(ids[0]))
  await accessible(page, 'a letter, opened')

  // Its cause is not gone, so it comes back.
  await page.getByRole('link', { name: 'Replay…' }).click()
  await page.getByRole('heading', { name: 'Replay 1 event?' }).waitFor()
  await accessible(page, 'the question')
  await page.getByRole('button', { name: 'Replay 1 event' }).click()
  await page.getByRole('status').getByText('1 event replayed').waitFor()
  assert.match(await page.evaluate(() => document.activeElement.textContent), /1 event replayed/, 'a reader of the screen begins there')

  await page.waitForTimeout(1500)
  await at('/console/dead-letters/plan?do=replay&code=missing_email')
  await page.getByRole('heading', { name: 'Replay 3 events?' }).waitFor()
  await page.getByRole('link', { name: 'Cancel' }).click()
  await page.getByRole('link', { name: 'Replay…' }).click()
  await page.getByRole('button', { name: 'Replay 3 events' }).click()
  await page.getByRole('status').getByText('3 events replayed').waitFor()

  await at(`/console/dead-letters/letter?id=${broken.id}`)
  await page.getByRole('link', { name: 'Discard…' }).click()
  const discard = page.getByRole('button', { name: 'Discard 1 event' })
  await discard.click()
  assert.match(page.url(), /plan/, 'not without the box')
  await page.getByLabel('Yes, for good').check()
  await discard.click()
  await page.getByRole('status').getByText('1 event discarded').waitFor()
  assert.equal(await page.getByText('malformed').count(), 0)
})

inWindow('a page that is not ready asks again in its place, and then works as any other', async ({ page, at }) => {
  const { id } = await site.event('user.created', nobody(newId()))
  await page.waitForTimeout(1500)
  let asked = 0
  /** The first two answers are of a page that is not ready. */
  const delay = (path, part = () => '') =>
    page.route(path, async (route) => {
      asked += 1
      if (asked > 2) return route.continue()
      const response = await route.fetch()
      const link = `<a href="${route.request().url()}" data-again>Look again</a>`
      const again = `<main id="main"><h1>Still going on</h1>${part()}${link}</main>`
      const text = (await response.text()).replace(/<title>.*<\/title>/s, '<title>Still going on</title>')
      await route.fulfill({ response, body: text.replace(/<main.*<\/main>/s, again) })
    })
  await delay('**/dead-letters/plan?*')
  await at(`/console/dead-letters/plan?do=discard&id=${id}`)
  await page.getByRole('heading', { name: 'Still going on' }).waitFor()
  await page.getByRole('heading', { name: 'Discard 1 event?' }).waitFor()
  await page.waitForTimeout(1500)
  assert.equal(asked, 3, 'and no more')
  assert.match(await page.title(), /^Discard/)
  const plan = await page.locator('input[name=plan]').inputValue()
  await page.getByLabel('Yes, for good').check()
  await page.getByRole('button', { name: 'Discard 1 event' }).click()
  await page.getByRole('status').getByText('1 event discarded').waitFor()

  // Its own page leads to the end.
  asked = 0
  await delay('**/dead-letters/job?*', () => `<p role="status">${asked} of 2</p><progress max="2" value="${asked}"></progress>`)
  await at(`/console/dead-letters/job?plan=${plan}`)
  await page.getByRole('link', { name: 'Look again' }).focus()
  await page.getByRole('status').getByText('2 of 2').waitFor()
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Look again', 'it keeps the focus')
  await page.getByRole('status').getByText('1 event discarded').waitFor()
  assert.match(page.url(), /dead-letters\?discarded=1$/)
})

inWindow('users: looked up by address and by id, fetched from Clerk, gone', async ({ page, at }) => {
  const { id } = await site.clerk.control('POST', 'users', { email: `${newId()}@harbour-labs.example` })
  await at('/console/users')
  await accessible(page, 'users')
  await page.getByLabel('Clerk id or address').fill(id)
  await page.getByRole('button', { name: 'Look up' }).click()
  await page.getByText('There is no row').waitFor()
  await page.getByRole('button', { name: 'Fetch from Clerk now' }).click()
  await page.getByRole('status').getByText('a row was made').waitFor()
  await accessible(page, 'a user')
  const address = await page.locator('.facts dd').first().innerText()
  await page.getByLabel('Clerk id or address').fill(address)
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: id }).waitFor()
  assert.ok(!page.url().includes('harbour'), 'the address is in no address')
  await page.getByLabel('Clerk id or address').fill('nobody@example.com')
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'Nobody has this address' }).waitFor()

  await site.event('user.deleted', { id, object: 'user', deleted: true })
  await page.waitForTimeout(1500)
  await at(`/console/users?q=${id}`)
  await page.getByText('no late event brings this user back').waitFor()
  await accessible(page, 'a tombstone')
})

inWindow('colours: as the system has them, or as this browser was told, and it remembers', async ({ page, at }) => {
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  const light = await paper()
  await page.emulateMedia({ colorScheme: 'dark' })
  const dark = await paper()
  assert.notEqual(light, dark)
  const button = page.locator('#theme')
  await button.click()
  assert.equal(await button.innerText(), 'Light')
  assert.equal(await paper(), light)
  await at('/console/events')
  assert.equal(await paper(), light, 'it is remembered')
  await button.click()
  await page.emulateMedia({ colorScheme: 'light' })
  assert.equal(await paper(), dark)
  await button.click()
  assert.equal(await paper(), light)
})

inWindow(
  'a phone: nothing sticks out',
  async ({ page, at }) => {
    const { id } = await site.event('user.created', user(newId()))
    await page.waitForTimeout(500)
    for (const path of ['', '/events', `/event?id=${id}`, '/dead-letters', '/users']) {
      await at(`/console${path}`)
      await fits(page, path)
      await accessible(page, `${path} on a phone`)
    }
  },
  { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true },
)

test('a server that is gone is told; a session that has ended too, and can begin again', async () => {
  const window = await open(browser, site)
  await signIn(window)
  await window.page.locator('#live').waitFor()
  await site.process.stop()
  // No green light stays on.
  await window.page.locator('#verdict[data-level=lost]').getByText('No answer').waitFor()
  assert.ok(await window.page.locator('#live').isHidden())
  await site.up()
  await window.page.getByRole('alert').getByRole('link', { name: 'Sign in again' }).click()
  await signIn(window)
  await window.page.locator('#live').waitFor()
  await window.context.close()
})
