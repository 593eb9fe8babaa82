/** What a kernel lacks, in words. */
import { assert, describe, it } from "@effect/vitest"
import { missing } from "../../src/host/KernelFeatures.ts"

const whole = {
  fileSystems: "nodev\tcgroup\nnodev\tcgroup2\n\text4\nnodev\toverlay\n",
  mounts: "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n",
  controllers: "cpuset cpu io memory hugetlb pids rdma misc\n"
}

describe("what a kernel lacks", () => {
  it("is nothing where all is there", () => assert.deepStrictEqual(missing(whole), []))

  it("is cgroup2, unknown or not mounted, its controllers, and overlayfs", () => {
    const [unknown, overlay] = missing({ fileSystems: "nodev\tcgroup\n\text4\n", mounts: "", controllers: "" })
    assert.match(unknown ?? "", /^this kernel has no cgroup2: no container can be started/)
    assert.match(overlay ?? "", /^this kernel has no overlayfs: .*kernel\.modules/)
    assert.match(missing({ ...whole, mounts: "" })[0] ?? "", /^cgroup2 could not be mounted/)
    assert.match(missing({ ...whole, controllers: "cpu io\n" })[0] ?? "", /lacks the controllers memory, pids/)
  })
})
