/** Debian's Chromium, and what a page must never do. */

import { readFile, mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import assert from 'node:assert/strict'
import { chromium } from 'playwright-core'
import { TOKEN, target } from './servers.js'

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
export const pictures = join(target, 'console-screenshots')
await mkdir(pictures, { recursive: true })

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

/**
 * A window in which nothing may go wrong: no error, no violation of the policy, no request to
 * anybody else. `window.faults` has what went wrong; `expected` says what a test does on purpose.
 */
export async function open(browser, site, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'en', ...options })
  const page = await context.newPage()
  const faults = []
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`)
    })
  })
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) faults.push(`${message.text()} ${message.location().url}`)
  })
  page.on('pageerror', (error) => faults.push(String(error)))
  page.on('request', (request) => {
    if (!request.url().startsWith(site.origin)) faults.push(`a request to ${request.url()}`)
  })
  return { context, page, faults, at: (path) => page.goto(`${site.origin}${path}`) }
}

export async function signIn({ page, at }) {
  await at('/console')
  await page.getByLabel('Token').fill(TOKEN)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
}

/** Nothing that a reader of the screen, or somebody with weak eyes, would stumble over. */
export async function accessible(page, where) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.map((node) => `${node.html}\n    ${node.failureSummary}`).join('\n  ')}`)
  assert.deepEqual(told, [], `${where}:\n${told.join('\n')}`)
}

/** Nothing sticks out at the side. */
export async function fits(page, where) {
  const { wide, inner } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, inner: innerWidth }))
  assert.ok(wide <= inner, `${where}: ${wide} px in a window of ${inner}`)
}
