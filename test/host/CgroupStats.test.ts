/** The same figures from the files of either cgroup version. */
import { assert, describe, it } from "@effect/vitest"
import { ofV1, ofV2, type Read } from "../../src/host/CgroupStats.ts"

const files =
  (texts: Readonly<Record<string, string>>): Read =>
  (_, file) =>
    texts[file] ?? ""

describe("CgroupStats", () => {
  it("reads cgroup2", () => {
    const stats = ofV2(
      files({
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nthrottled_usec 7\n",
        "memory.stat": "anon 100\ninactive_file 300\n",
        "memory.current": "1000\n",
        "memory.peak": "2000\n",
        "memory.max": "max\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n",
        "pids.current": "3\n",
        "pids.max": "64\n",
        "memory.pressure":
          "some avg10=1.50 avg60=0.00 avg300=0.00 total=900\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=80\n"
      })
    )
    assert.deepStrictEqual(stats, {
      cpuNanos: 1_500_000,
      throttledNanos: 7_000,
      memoryBytes: 1_000,
      workingSetBytes: 700,
      memoryPeakBytes: 2_000,
      memoryLimitBytes: undefined,
      readBytes: 15,
      writtenBytes: 20,
      reads: 2,
      writes: 2,
      pids: 3,
      pidsLimit: 64,
      pressure: {
        cpu: undefined,
        memory: { some10: 1.5, full10: 0.25, someTotal: 900, fullTotal: 80 },
        io: undefined
      }
    })
  })

  it("reads cgroup v1, and zeros where there is nothing", () => {
    const stats = ofV1(
      files({
        "cpuacct.usage": "1500000\n",
        "cpu.stat": "nr_periods 1\nnr_throttled 1\nthrottled_time 7000\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
        "memory.usage_in_bytes": "1000\n",
        "memory.max_usage_in_bytes": "2000\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 5\nTotal 35\n",
        "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n8:16 Read 1\nTotal 4\n",
        "pids.current": "3\n",
        "pids.max": "64\n"
      })
    )
    assert.deepInclude(stats, { cpuNanos: 1_500_000, throttledNanos: 7_000, workingSetBytes: 700, readBytes: 15 })
    assert.deepInclude(stats, { writtenBytes: 20, reads: 2, writes: 2, pids: 3, pidsLimit: 64 })
    assert.isUndefined(stats.memoryLimitBytes)
    assert.deepInclude(ofV1(files({})), { cpuNanos: 0, memoryBytes: 0, pids: 0, pidsLimit: undefined })
  })
})
