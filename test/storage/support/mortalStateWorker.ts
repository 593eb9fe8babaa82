/** A state worker that dies at once when it is asked to write a record named `fatal`. */
import { parentPort } from "node:worker_threads"
import type { WorkerRequest } from "../../../src/storage/StateProtocol.ts"

const isFatal = (request: WorkerRequest): boolean =>
  request._tag === "Transaction" && request.changes.some((change) => change._tag === "Put" && change.name === "fatal")

parentPort?.on("message", (requests: ReadonlyArray<WorkerRequest>) => {
  if (requests.some(isFatal)) process.exit(9)
})

await import("../../../src/storage/StateWorker.ts")
