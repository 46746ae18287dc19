import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['tests/**/*.test.ts'],
    // Real processes: slow machines get the time they need.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})
