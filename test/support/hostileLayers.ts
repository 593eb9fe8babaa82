/** A corpus of layers that must not pass, for the filter alone and for all that unpacks. */
import type { LayerLimits } from "../../src/storage/LayerFilter.ts"
import {
  binaryName,
  device,
  directory,
  file,
  hardlink,
  type LayerEntry,
  opaque,
  raw,
  symlink,
  tar,
  whiteout
} from "./images.ts"

/** Kinds of hostile layers: what they are, and the refusal with its entry. */
export const hostile: ReadonlyArray<readonly [string, ReadonlyArray<LayerEntry>, string, Partial<LayerLimits>?]> = [
  ["an absolute path", [file("/etc/x")], "/etc/x has an absolute path"],
  ["an absolute path of slashes", [file("//etc/x")], "//etc/x has an absolute path"],
  ["an absolute directory", [directory("/")], "/ has an absolute path"],
  ["..", [file("../x")], '../x has ".." in its path'],
  [".. in the middle", [file("a/../../x")], 'a/../../x has ".." in its path'],
  [".. that stays inside", [file("a/../x")], 'a/../x has ".." in its path'],
  [".. at the end", [directory("a/..")], 'a/../ has ".." in its path'],
  ["a whiteout above the root", [whiteout("../x")], '../.wh.x has ".." in its path'],
  ["a whiteout of ..", [file("a/.wh...")], "a/.wh... is a whiteout of no proper name"],
  ["a whiteout of .", [file(".wh..")], ".wh.. is a whiteout of no proper name"],
  ["a whiteout of nothing", [file("a/.wh.")], "a/.wh. is a whiteout of no proper name"],
  ["an opaque marker above the root", [file("../.wh..wh..opq")], '../.wh..wh..opq has ".." in its path'],
  [
    "a directory called like a whiteout",
    [directory(".wh.a"), file(".wh.a/b")],
    ".wh.a/b lies in a directory that is named like a whiteout"
  ],
  [
    "through an absolute symlink",
    [symlink("e", "/etc"), file("e/pwn")],
    'e/pwn escapes through the symlink "e" to "/etc"'
  ],
  [
    "through a climbing symlink",
    [symlink("e", "../.."), file("e/pwn")],
    "e/pwn escapes through a symlink that climbs out of the layer"
  ],
  [
    "through two symlinks",
    [directory("d"), symlink("d/a", ".."), symlink("b", "d/a/.."), file("b/pwn")],
    "b/pwn escapes through a symlink that climbs out of the layer"
  ],
  [
    "a directory through a symlink",
    [symlink("e", "/etc"), directory("e/d")],
    'e/d/ escapes through the symlink "e" to "/etc"'
  ],
  [
    "a symlink through a symlink",
    [symlink("e", "/etc"), symlink("e/l", "x")],
    'e/l escapes through the symlink "e" to "/etc"'
  ],
  [
    "a device through a symlink",
    [symlink("e", "/dev"), device("e/sda", "block", 8, 0)],
    'e/sda escapes through the symlink "e" to "/dev"'
  ],
  [
    "a whiteout through a symlink",
    [symlink("e", "/etc"), whiteout("e/passwd")],
    'e/.wh.passwd escapes through the symlink "e" to "/etc"'
  ],
  [
    "opaque through a symlink",
    [symlink("e", "/etc"), opaque("e")],
    'e/.wh..wh..opq escapes through the symlink "e" to "/etc"'
  ],
  ["a symlink to itself", [symlink("e", "e"), file("e/x")], 'e/x goes through too many symlinks ("e")'],
  [
    "symlinks in a circle",
    [symlink("a", "b"), symlink("b", "a"), file("a/x")],
    'a/x goes through too many symlinks ("a")'
  ],
  ["a symlink that grows", [symlink("a", "a/a"), file("a/x")], 'a/x goes through too many symlinks ("a")'],
  [
    "a way without end",
    [directory("a"), symlink("l", "a/../".repeat(600)), symlink("m", "l/l"), file("m/x")],
    "m/x goes a way through symlinks that is too long"
  ],
  ["through a file", [file("f"), file("f/x")], 'f/x goes through "f", which is not a directory'],
  ["through a device", [device("f", "character", 1, 3), file("f/x")], 'f/x goes through "f", which is not a directory'],
  [
    "a hard link out",
    [hardlink("h", "../../etc/passwd")],
    'h is a hard link whose target "../../etc/passwd" has ".." in its path'
  ],
  [
    "a hard link to the host's file",
    [hardlink("h", "/etc/passwd")],
    'h is a hard link whose target "/etc/passwd" goes through "etc", which is not in this layer'
  ],
  ["a hard link to nothing", [hardlink("h", "x")], 'h is a hard link to "x", which is not in this layer'],
  [
    "a hard link through a symlink",
    [symlink("e", "/etc"), hardlink("h", "e/passwd")],
    'h is a hard link whose target "e/passwd" escapes through the symlink "e" to "/etc"'
  ],
  ["a hard link to a directory", [directory("d"), hardlink("h", "d")], 'h is a hard link to "d", which is a directory'],
  ["a hard link to the root", [hardlink("h", ".")], 'h is a hard link whose target "." names the root'],
  ["a hard link to itself", [file("h"), hardlink("h", "h")], "h is a hard link to itself"],
  ["a hard link over its own directory", [file("d/f"), hardlink("d", "d/f")], "d is a hard link to itself"],
  [
    "a hard link to what was taken away",
    [file("d/f"), file("d"), hardlink("h", "d/f")],
    'h is a hard link whose target "d/f" goes through "d", which is not a directory'
  ],
  ["a file for the root", [file(".")], ". would replace the root directory"],
  ["a symlink for the root", [symlink("./", "/etc")], "./ would replace the root directory"],
  [
    "a name longer than Linux has",
    [file("x".repeat(256))],
    `${"x".repeat(256)} has a name of 256 bytes, more than the 255 that Linux has`
  ],
  [
    "a path longer than allowed",
    [file("abcdefghi/j")],
    "abcdefghi/j has a path of 11 bytes, more than the 10 allowed",
    { pathBytes: 10 }
  ],
  ["a deep path", [file("a/b/c/d")], "a/b/c/d lies 4 directories deep, more than the 3 allowed", { depth: 3 }],
  [
    "a deep path through symlinks",
    [directory("a/b"), symlink("l", "a/b"), file("l/c/d")],
    "l/c/d lies more than 3 directories deep",
    { depth: 3 }
  ],
  [
    "a long path through symlinks",
    [directory("aaaa/bbbb"), symlink("l", "aaaa/bbbb"), file("l/cc")],
    "l/cc has a path longer than the 10 bytes allowed",
    { pathBytes: 10 }
  ],
  [
    "too many entries",
    [file("a"), file("b"), file("c")],
    "c is one of more than 2 entries, which is the limit",
    { entries: 2 }
  ],
  [
    "too many whiteouts",
    [whiteout("a"), whiteout("b"), whiteout("c")],
    ".wh.c is one of more than 2 entries, which is the limit",
    { entries: 2 }
  ],
  [
    "too many bytes",
    [file("a", "123"), file("b", "123")],
    "b brings the layer to 6 bytes, more than the 5 allowed",
    { totalBytes: 5 }
  ],
  [
    "many opaque directories",
    [opaque("a"), opaque("b")],
    "b/.wh..wh..opq is one of more than 1 directories that are opaque or have extended attributes",
    { specialDirectories: 1 }
  ],
  ["a long symlink", [symlink("l", "x".repeat(5000))], "l is a symlink to 5000 bytes, more than the 3072 allowed"],
  [
    "a huge extended header",
    [file("a", "", { xattrs: { "user.a": "x".repeat(2000) } })],
    "extended has an extended header of 2026 bytes, more than the 1000 allowed",
    { headerBytes: 1000 }
  ],
  ["a name that is not UTF-8", [binaryName(file("x"), "/\xff\xfe")], "/\ufffd\ufffd has an absolute path"],
  ["a name that would disturb a terminal", [file("/\x1b[2J")], "/\\u{1b}[2J has an absolute path"],
  ["garbage", [raw(Buffer.alloc(512, "x"))], "(header at byte 0) has a wrong checksum"],
  [
    "a content that is cut off",
    [raw(tar([file("a", "x".repeat(600))]).subarray(0, 1024)), raw(Buffer.alloc(0))],
    "passed"
  ]
]
