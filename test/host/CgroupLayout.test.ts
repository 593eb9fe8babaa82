/** Layouts from mount tables as they are on v1, hybrid and v2 hosts. */
import { assert, describe, it } from "@effect/vitest"
import { directories, fromMounts, hierarchyOf, parseMountInfo } from "../../src/host/CgroupLayout.ts"

const v2 = `
25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
31 25 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
40 30 8:1 / /with\\040blank rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw
`
const v1 = `
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
37 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
38 31 0:32 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
`
const hybrid = `${v1}41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

describe("CgroupLayout", () => {
  it("v2: one directory", () => {
    const layout = fromMounts(parseMountInfo(v2))
    assert.strictEqual(layout.kind, "v2")
    assert.deepStrictEqual(directories(layout, "/a/b"), ["/sys/fs/cgroup/a/b"])
    assert.strictEqual(hierarchyOf(layout, "memory")?.version, 2)
  })

  it("v1: one directory per hierarchy, the first mount of each", () => {
    const layout = fromMounts(parseMountInfo(v1))
    assert.strictEqual(layout.kind, "v1")
    assert.deepStrictEqual(directories(layout, "/a"), [
      "/sys/fs/cgroup/cpu,cpuacct/a",
      "/sys/fs/cgroup/memory/a",
      "/sys/fs/cgroup/pids/a",
      "/sys/fs/cgroup/systemd/a"
    ])
    assert.strictEqual(hierarchyOf(layout, "memory")?.mountPoint, "/sys/fs/cgroup/memory")
    assert.deepStrictEqual(layout.hierarchies.at(-1)?.controllers, ["name=systemd"])
    assert.isUndefined(hierarchyOf(layout, "hugetlb"))
  })

  it("hybrid: v1's controllers, and the cgroup2 beside them", () => {
    const layout = fromMounts(parseMountInfo(hybrid))
    assert.strictEqual(layout.kind, "hybrid")
    assert.strictEqual(hierarchyOf(layout, "memory")?.version, 1)
    assert.strictEqual(hierarchyOf(layout, "hugetlb")?.mountPoint, "/sys/fs/cgroup/unified")
  })

  it("nothing mounted", () => assert.strictEqual(fromMounts(parseMountInfo("")).kind, "none"))

  it("names with blanks, shared and private mounts", () => {
    const mounts = parseMountInfo(v2)
    assert.strictEqual(mounts[2]?.mountPoint, "/with blank")
    assert.isFalse(mounts[2]?.private)
    assert.isTrue(parseMountInfo(v1)[0]?.private)
  })
})
