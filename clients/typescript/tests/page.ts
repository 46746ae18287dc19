import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The code of docs/NEXTJS.md, as files. */

const here = dirname(fileURLToPath(import.meta.url))
export const root = join(here, '..', '..', '..')
/** Inside the package, so that its `node_modules` are found from there. */
export const projects = join(here, '.page')

export interface Block {
  file: string
  code: string
}

/** Blocks that begin with a comment that names their file. */
export async function blocks(): Promise<Block[]> {
  const page = await readFile(join(root, 'docs', 'NEXTJS.md'), 'utf8')
  const fences = [...page.matchAll(/^```tsx?\n([^]*?)^```$/gm)].map((fence) => fence[1] ?? '')
  return fences.map((code) => {
    const file = /^\/\/ (\S+)\n/.exec(code)?.[1]
    if (!file) throw new Error(`a block does not name its file:\n${code}`)
    return { file, code }
  })
}

/** An application of these blocks; of two with one name the later one counts. */
export async function project(name: string, parts: Block[]): Promise<string> {
  const folder = join(projects, name)
  await rm(folder, { recursive: true, force: true })
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
