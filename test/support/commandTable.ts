/** Tables of what a command does in a state, as a test has them written down by hand: every cell is a test of its own. */
import { assert, it } from "@effect/vitest"

/** One line per state, first its name, then what each of `commands` does in it; `actual` looks that up. */
export const everyCell = <Command extends string>(
  expected: string,
  commands: ReadonlyArray<Command>,
  actual: (state: string, command: Command) => string | undefined
): void => {
  for (const line of expected.trim().split("\n")) {
    const [state = "", ...actions] = line.split(/\s+/)
    commands.forEach((command, index) => {
      it(`${state} × ${command}`, () => assert.strictEqual(actual(state, command), actions[index]))
    })
  }
}
