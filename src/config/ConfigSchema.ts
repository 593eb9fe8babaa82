/**
 * The machine config as JSON Schema for editors: docs/machine-config.schema.json is made from it, and GetConfigSchema gives it.
 */
import * as Schema from "effect/Schema"
import { MachineConfig } from "./MachineConfig.ts"

/** As a JSON document. */
export const configSchema = (): string => {
  const { definitions, schema } = Schema.toJsonSchemaDocument(MachineConfig, { onExcessProperty: "error" })
  const whole = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    ...schema,
    ...(Object.keys(definitions).length === 0 ? {} : { $defs: definitions })
  }
  return `${JSON.stringify(whole, null, 2)}\n`
}
