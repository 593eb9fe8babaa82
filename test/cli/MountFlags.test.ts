/** Docker's words for what is put into a container's file system. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { parseDevice, parseMount, parseSecret, parseTmpfs, parseVolume } from "../../src/cli/MountFlags.ts"

/** What is read, or the words `no`. */
const read = <A>(parse: (text: string) => Result.Result<A, string>, ...texts: ReadonlyArray<string>) =>
  texts.map((text) =>
    Result.getOrElse(
      Result.map(parse(text), (value): unknown => value),
      () => "no"
    )
  )

describe("what is put into a container", () => {
  it("--volume is a volume or a path of the host, where it is seen, and whether it may be written", () => {
    assert.deepStrictEqual(
      read(parseVolume, "/a:/b", "/a:/b:ro", "/a:/b:rw", "data:/b", "pg_data:/b:ro", "/a:/b:ro,idmap"),
      [
        { bind: { source: "/a", target: "/b", readOnly: false, mapIds: false } },
        { bind: { source: "/a", target: "/b", readOnly: true, mapIds: false } },
        { bind: { source: "/a", target: "/b", readOnly: false, mapIds: false } },
        { volume: { name: "data", target: "/b", readOnly: false } },
        { volume: { name: "pg_data", target: "/b", readOnly: true } },
        { bind: { source: "/a", target: "/b", readOnly: true, mapIds: true } }
      ]
    )
    assert.deepStrictEqual(read(parseVolume, "./a:/b", "/a", "/a:/b:z", "/a:/b:ro:x", ""), [
      "no",
      "no",
      "no",
      "no",
      "no"
    ])
  })

  it("--mount says the same with names, and memory", () => {
    assert.deepStrictEqual(
      read(
        parseMount,
        "type=bind,source=/a,target=/b,readonly",
        "src=/a,dst=/b",
        "type=volume,source=data,target=/b,ro",
        "type=tmpfs,destination=/t",
        "type=tmpfs,target=/t,tmpfs-size=16m"
      ),
      [
        { bind: { source: "/a", target: "/b", readOnly: true, mapIds: false } },
        { bind: { source: "/a", target: "/b", readOnly: false, mapIds: false } },
        { volume: { name: "data", target: "/b", readOnly: true } },
        { tmpfs: ["/t", {}] },
        { tmpfs: ["/t", { sizeBytes: 16n * 1024n * 1024n }] }
      ]
    )
    const wrong = ["type=volume,source=/a,target=/b", "type=bind,target=/b", "type=bind,source=/a,target=/b,colour=red"]
    assert.deepStrictEqual(read(parseMount, ...wrong), ["no", "no", "no"])
  })

  it("--tmpfs, --device and --secret", () => {
    assert.deepStrictEqual(read(parseTmpfs, "/t", "/t:size=1k", "/t:mode=700"), [
      ["/t", {}],
      ["/t", { sizeBytes: 1024n }],
      "no"
    ])
    assert.deepStrictEqual(read(parseDevice, "/dev/kvm", "/dev/kvm:rw", "/dev/kvm:/dev/x:r", "kvm"), [
      { path: "/dev/kvm", target: "", access: "" },
      { path: "/dev/kvm", target: "", access: "rw" },
      { path: "/dev/kvm", target: "/dev/x", access: "r" },
      "no"
    ])
    assert.deepStrictEqual(read(parseSecret, "token", "token:/etc/token", "token:relative"), [
      { name: "token", target: "" },
      { name: "token", target: "/etc/token" },
      "no"
    ])
  })
})
