/**
 * The flags every command has: where Ironwood is, how to print, whether to colour.
 *
 * They may stand anywhere on the command line (`ironwood -o json ps` = `ironwood ps -o json`). A command reads them with
 * `yield* OutputSetting`; the client and the style already do.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import { Screen } from "./Screen.ts"
import * as Style from "./Style.ts"

/** `--address`: absent = see Address.ts. */
export const AddressSetting = GlobalFlag.Setting("address")({
  flag: Flag.String("address").pipe(
    Flag.withMetavar("ADDRESS"),
    Flag.withDescription(
      "Where Ironwood listens: unix:PATH or HOST:PORT (env IRONWOOD_ADDRESS; default: ./.ironwood, else /run/ironwood)"
    ),
    Flag.optional
  )
})

/** How to print: a table for people, the API's own JSON, or the same as YAML. */
export type Output = "table" | "json" | "yaml"

/** `-o`, `--output`. */
export const OutputSetting = GlobalFlag.Setting("output")({
  flag: Flag.Literals("output", ["table", "json", "yaml"]).pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("FORMAT"),
    Flag.withDescription("How to print; json is the API's own, protobuf JSON (default: table)"),
    Flag.withDefault("table")
  )
})

/** `--color`, `--no-color`: absent = colours on a terminal, unless NO_COLOR is set. */
export const ColorSetting = GlobalFlag.Setting("color")({
  flag: Flag.Boolean("color").pipe(
    Flag.withDescription("Colours; --no-color for none (default: on a terminal, unless NO_COLOR is set)"),
    Flag.optional
  )
})

/** All of them, in the order of `--help`. */
export const settings = [AddressSetting, OutputSetting, ColorSetting] as const

/** The style to print with. */
export const style = Effect.gen(function* () {
  const screen = yield* Screen
  const wanted = yield* ColorSetting
  return Option.getOrElse(wanted, () => screen.canColor) ? Style.colored : Style.plain
})
