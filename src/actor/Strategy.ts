/**
 * OTP's restart strategies: what a child's crash means for its siblings.
 *
 * `one_for_one`: nothing. `one_for_all`: all are ended and started anew. `rest_for_one`: those started after it are ended
 * and started anew, in order.
 */
import * as Schema from "effect/Schema"

export const Strategy = Schema.Literals(["one_for_one", "one_for_all", "rest_for_one"])
export type Strategy = typeof Strategy.Type
