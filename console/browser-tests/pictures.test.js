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

const sizes = { wide: { width: 1280, height: 860 }, narrow: { width: 360, height: 740 } }

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
      await window.context.close()
    })
  }
}
