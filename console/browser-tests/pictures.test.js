/** Pictures of every page, light and dark, wide and narrow, for a person to look at. */

import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { accessible, fits, launch, open, pictures, signIn } from './browser.js'
import { Site, newId, traffic, user } from './servers.js'

let site, browser, events, known, letter, gone
/** How long events come in before a picture is taken: the charts should have something to show. */
const SECONDS = Number(process.env.PICTURE_SECONDS ?? 40)

before(async () => {
  site = await Site.start()
  browser = await launch()
  const empty = await open(browser, site)
  await signIn(empty)
  for (const name of ['overview', 'events', 'dead-letters', 'users']) {
    await empty.at(name === 'overview' ? '/console' : `/console/${name}`)
    await empty.page.waitForTimeout(700)
    await empty.page.screenshot({ path: join(pictures, `empty-${name}.png`), fullPage: true })
  }
  await empty.context.close()
  events = traffic(site)
  known = newId()
  gone = newId()
  await site.event('user.created', user(known))
  await site.event('user.updated', user(known, { first_name: 'Anne-Sophie', last_name: 'von Westerholt' }))
  await site.event('user.created', user(gone))
  await site.event('user.deleted', { id: gone, object: 'user', deleted: true })
  for (let count = 0; count < 7; count += 1) {
    letter = (await site.event('user.created', user(newId(), { email_addresses: [], primary_email_address_id: null }))).id
  }
  await site.post('no JSON')
  await site.post('{"type": "user.created"}')
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000))
})

after(async () => {
  await events?.stop()
  await browser?.close()
  await site?.stop()
})

const sizes = { wide: { width: 1440, height: 900 }, narrow: { width: 390, height: 844 } }

/** An hour as it might have been, with a disturbance and a gap: nobody waits for a real one. */
async function hour(window) {
  const { page, at } = window
  await page.route('**/console/stream', async (route) => {
    const now = Date.now()
    const points = []
    for (let n = 0; n < 720; n += 1) {
      if (n > 300 && n < 330) continue
      const wave = 180 + 60 * Math.sin(n / 60) + 12 * Math.sin(n / 7)
      const bad = n > 480 && n < 560
      points.push({
        n, at: now - (719 - n) * 5000, received: wave, handled: bad ? wave * 0.4 : wave,
        waiting: bad ? Math.round((n - 480) * 110) : Math.round(3 + 3 * Math.sin(n / 3)), delayed: bad ? 40 + (n % 9) : 0,
        p50: bad ? 1.4 : 0.018 + 0.004 * Math.sin(n / 20), p99: bad ? 4.6 : 0.09 + 0.03 * Math.sin(n / 11),
        retried: bad ? 140 + (n % 30) : n % 200 < 12 ? 3 : 0, dead: n > 505 && n < 517 ? 7 : 0, refused: n > 100 && n < 112 ? 4 : 0,
      })
    }
    const news = { level: 'well', word: 'All is well', verdict: '<p class="word"><span class="sign"></span>All is well</p><p>Events come in and are applied; nothing waits for a person.</p>', now: { success: '99.98 %', rate: '214', queue: '4', latency: '18 ms' }, notes: {} }
    const body = `retry: 60000\ndata: ${JSON.stringify({ whole: true, points, news })}\n\n`
    await route.fulfill({ contentType: 'text/event-stream', body })
  })
  await at('/console')
  await page.waitForFunction(() => document.querySelectorAll('path.line').length >= 8)
}

for (const colorScheme of ['light', 'dark']) {
  for (const [size, viewport] of Object.entries(sizes)) {
    test(`pictures, ${colorScheme} and ${size}`, async () => {
      const window = await open(browser, site, { viewport, colorScheme })
      const { page, at } = window
      await at('/console/login')
      await page.screenshot({ path: join(pictures, `login-${colorScheme}-${size}.png`) })
      await signIn(window)
      const pages = {
        overview: '',
        events: '/events',
        event: `/event?id=${letter}`,
        'dead-letters': '/dead-letters',
        group: '/dead-letters?code=missing_email',
        letter: `/dead-letters/letter?id=${letter}`,
        replay: '/dead-letters/plan?do=replay&code=missing_email',
        discard: '/dead-letters/plan?do=discard&code=malformed',
        user: `/users?q=${known}`,
        gone: `/users?q=${gone}`,
        missing: '/event?id=msg_nothing',
      }
      for (const [name, path] of Object.entries(pages)) {
        await at(`/console${path}`)
        if (name === 'overview') await page.waitForFunction(() => document.querySelectorAll('path.line').length >= 4)
        await page.waitForTimeout(300)
        await fits(page, `${name}, ${size}`)
        await accessible(page, `${name}, ${colorScheme}, ${size}`)
        await page.screenshot({ path: join(pictures, `${name}-${colorScheme}-${size}.png`), fullPage: true })
      }
      await at(`/console/dead-letters/letter?id=${letter}`)
      await page.getByRole('button', { name: 'Show the body' }).click()
      await page.locator('pre').waitFor()
      await accessible(page, `a body, ${colorScheme}, ${size}`)
      await page.screenshot({ path: join(pictures, `body-${colorScheme}-${size}.png`), fullPage: true })
      await hour(window)
      await fits(page, `an hour, ${size}`)
      await page.screenshot({ path: join(pictures, `hour-${colorScheme}-${size}.png`), fullPage: true })
      await window.context.close()
    })
  }
}
