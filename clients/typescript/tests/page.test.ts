import { execFile } from 'node:child_process'
import { cp, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { blocks, project, projects, root } from './page.js'

/** docs/NEXTJS.md promises that its code compiles. */

const run = promisify(execFile)
const modules = fileURLToPath(new URL('../node_modules', import.meta.url))

/** What the compiler has to say. */
async function compile(folder: string): Promise<string> {
  const tsc = join(modules, 'typescript', 'bin', 'tsc')
  return run(process.execPath, [tsc, '--project', folder]).then(
    () => '',
    (error: { stdout: string }) => error.stdout,
  )
}

describe('docs/NEXTJS.md', () => {
  beforeAll(async () => {
    await mkdir(projects, { recursive: true })
    // Of the application's schema; Prisma looks for its client from the schema's folder on.
    await cp(join(root, 'tests', 'fixtures', 'prisma', 'schema.prisma'), join(projects, 'schema.prisma'))
    const prisma = join(modules, 'prisma', 'build', 'index.js')
    await run(process.execPath, [prisma, 'generate', '--schema', join(projects, 'schema.prisma')], {
      // It would download an engine that it has no use for here.
      env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, CHECKPOINT_DISABLE: '1' },
    })
  })

  test('the helpers by the API, and the pages, compile', async () => {
    const all = await blocks()
    const files = all.map(({ file }) => file)
    const first = all.filter(({ file }, place) => files.indexOf(file) === place)
    expect(first).toHaveLength(all.length - 1)
    expect(await compile(await project('api', first))).toBe('')
  })

  test('the helpers by Prisma compile with the same pages', async () => {
    const all = await blocks()
    expect(all.some(({ code }) => code.includes('prisma.user.findUnique'))).toBe(true)
    expect(await compile(await project('prisma', all))).toBe('')
  })

  test('a page that asks for what a row does not have would not compile', async () => {
    const wrong = { file: 'app/wrong.ts', code: `import { getCurrentUser } from '@/lib/auth-middleware'\nexport const wrong = async () => (await getCurrentUser())?.surname\n` }
    for (const helpers of [0, 1]) {
      const chosen = (await blocks()).filter(({ file }) => file === 'lib/auth-middleware.ts')[helpers]
      expect(chosen).toBeDefined()
      const folder = await project(`wrong-${helpers}`, [...(chosen ? [chosen] : []), wrong])
      expect(await compile(folder)).toContain("'surname' does not exist")
    }
  })
})
