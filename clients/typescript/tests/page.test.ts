import { execFile } from 'node:child_process'
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'

/** docs/NEXTJS.md promises that its code compiles. */

const run = promisify(execFile)
const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '..', '..', '..')
const modules = join(here, '..', 'node_modules')
/** Inside the package, so that its `node_modules` are found from there. */
const projects = join(here, '.page')

interface Block {
  file: string
  code: string
}

/** Blocks that begin with a comment that names their file. */
async function blocks(): Promise<Block[]> {
  const page = await readFile(join(root, 'docs', 'NEXTJS.md'), 'utf8')
  const fences = [...page.matchAll(/^```tsx?\n([^]*?)^```$/gm)].map((fence) => fence[1] ?? '')
  return fences.map((code) => {
    const file = /^\/\/ (\S+)\n/.exec(code)?.[1]
    if (!file) throw new Error(`a block does not name its file:\n${code}`)
    return { file, code }
  })
}

/** An application of these blocks; of two with one name the later one counts. */
async function project(name: string, parts: Block[]): Promise<string> {
  const folder = join(projects, name)
  const files = {
    'tsconfig.json': JSON.stringify({
      compilerOptions: {
        // As `create-next-app` has it.
        target: 'ES2017',
        lib: ['dom', 'dom.iterable', 'esnext'],
        skipLibCheck: true,
        strict: true,
        noEmit: true,
        module: 'esnext',
        moduleResolution: 'bundler',
        isolatedModules: true,
        jsx: 'react-jsx',
        types: ['node', 'react'],
        paths: { '@/*': ['./*'], '@clerk-sync/client': ['../../../dist/index.d.ts'] },
      },
      include: ['**/*.ts', '**/*.tsx'],
    }),
    // What every application with Prisma has.
    'lib/prisma.ts': `import { PrismaClient } from '@prisma/client'\nexport declare const prisma: PrismaClient\n`,
    ...Object.fromEntries(parts.map(({ file, code }) => [file, code])),
  }
  for (const [file, code] of Object.entries(files)) {
    await mkdir(dirname(join(folder, file)), { recursive: true })
    await writeFile(join(folder, file), code)
  }
  return folder
}

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
    await rm(projects, { recursive: true, force: true })
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
