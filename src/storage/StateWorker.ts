/**
 * The thread that owns the state database. An entry point of its own: `StateConnection` starts this file (from sources),
 * or its bundle `state-worker.cjs` beside that of the brain. It imports only Node and the files that know SQLite, since
 * all that it loads is paid for twice.
 *
 * It takes all requests that are waiting, commits the transactions among them at once, answers, and takes the next: what
 * arrives during an fsync shares the next one.
 */
import { isMainThread, type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import { StateDatabase } from "./StateDatabase.ts"
import { faultOf } from "./StateFile.ts"
import type { WorkerAnswer, WorkerRequest } from "./StateProtocol.ts"

/** Transactions in one commit at most: a bound on the work that a full disk makes us do again. */
const GROUP_LIMIT = 512

type TransactionRequest = Extract<WorkerRequest, { readonly _tag: "Transaction" }>

const answer = (message: WorkerAnswer): void => parentPort?.postMessage(message, [])

const open = (path: string): StateDatabase | undefined => {
  try {
    const database = new StateDatabase(path)
    for (const contents of database.contents()) answer({ _tag: "Contents", contents })
    answer({ _tag: "Opened" })
    return database
  } catch (error) {
    answer({ _tag: "OpenFailed", fault: faultOf(error) })
    return undefined
  }
}

const commit = (database: StateDatabase, group: ReadonlyArray<TransactionRequest>): void => {
  const outcomes = database.commit(group.map((request) => request.changes))
  answer({
    _tag: "Outcomes",
    outcomes: outcomes.flatMap((outcome, index) => {
      const request = group[index]
      return request === undefined ? [] : [[request.id, outcome] as const]
    })
  })
}

const read = (id: number, work: () => void): void => {
  try {
    work()
  } catch (error) {
    answer({ _tag: "RequestFailed", id, fault: faultOf(error) })
  }
}

const sendJournal = (database: StateDatabase, id: number): void => {
  for (const journal of database.journal()) answer({ _tag: "Journal", id, journal, last: false })
  answer({ _tag: "Journal", id, journal: { reserved: 0, nodes: "[]", entries: "[]" }, last: true })
}

/** Serves the requests in their order. False when it was asked to close. */
const serve = (database: StateDatabase, requests: Iterable<WorkerRequest>): boolean => {
  let group: Array<TransactionRequest> = []
  const flush = (): void => {
    if (group.length > 0) commit(database, group)
    group = []
  }
  for (const request of requests) {
    if (request._tag === "Transaction") {
      group.push(request)
      if (group.length >= GROUP_LIMIT) flush()
      continue
    }
    flush()
    const { _tag } = request
    if (_tag === "Close") return false
    const { id } = request
    read(id, () =>
      _tag === "LoadJournal" ? sendJournal(database, id) : answer({ _tag: "Facts", id, facts: database.facts() })
    )
  }
  flush()
  return true
}

/** Those of `first` and of all messages that wait behind it. */
function* arrived(port: MessagePort, first: ReadonlyArray<WorkerRequest>): Generator<WorkerRequest> {
  let requests: ReadonlyArray<WorkerRequest> | undefined = first
  while (requests !== undefined) {
    yield* requests
    requests = receiveMessageOnPort(port)?.message
  }
}

/**
 * When the reserve is seen to first, where the disk has plenty: not in the first second of a brain, which has better things to do
 * with it. On any other disk at once: a container that writes without end may fill it in less.
 */
const RESERVE_AFTER = 1_000

const main = (port: MessagePort, path: string): void => {
  const database = open(path)
  if (database === undefined) return
  let isSettled = false
  const settle = setTimeout(() => {
    isSettled = true
    database.keepReserve()
  }, RESERVE_AFTER)
  port.on("message", (first: ReadonlyArray<WorkerRequest>) => {
    if (serve(database, arrived(port, first))) {
      // what was asked is answered: the reserve makes nobody wait but the next
      if (isSettled || database.isReserveUrgent) database.keepReserve()
      return
    }
    clearTimeout(settle)
    database.close()
    port.close()
  })
}

if (!isMainThread && parentPort !== null && typeof workerData === "string") main(parentPort, workerData)
