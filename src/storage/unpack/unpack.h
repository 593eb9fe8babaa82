/*
 * What the parts of `unpack` share: the stream between them, and how they end it. See unpack.c.
 *
 * Bytes of the layer's tar are named by their position in it, from its first byte on. Those from `kept` to `made` are in memory.
 */
#ifndef UNPACK_H
#define UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- decoder.c: from the blob to the tar, with its digest ---- */

enum compression { PLAIN, GZIP, ZSTD };
enum progress { MADE, WANTS_INPUT, FINISHED, BROKEN };

/* The algorithm of the digest: sha256, sha512 or none. */
void decoder_open(enum compression compression, const char *algorithm);
/* Reads on in the blob of which `available` of `size` bytes are there; puts at most `room` bytes at `to`. */
enum progress decoder_run(int blob, uint64_t available, uint64_t size, uint8_t *to, size_t room, size_t *made);
/* After BROKEN: why. */
const char *decoder_problem(void);
/* After FINISHED: the digest of all that was made, in hexadecimal digits. */
const char *decoder_digest(void);

/* ---- framer.c: where in the tar headers are, and where contents ---- */

/* What is from here on: `length` bytes of this kind, as far as it can be told. */
enum kind { HEADERS, CONTENT, REST };
struct span {
    enum kind kind;
    uint64_t length;
};

/* Takes the next bytes of headers; of contents and of the rest it is told nothing. Says how many it took of them. */
size_t framer_take(const uint8_t *bytes, size_t length);
/* After framer_take: whether content (with its padding) follows, and how much; whether the archive has ended. */
struct span framer_next(void);

/* ---- tree.c: the files ---- */

struct attributes {
    uint32_t mode, uid, gid, nanoseconds;
    int64_t seconds;
    uint32_t xattrs;          /* how many pairs of texts are at `pairs` */
    const uint8_t *pairs;
};

void tree_open(int root);
/* Each of them ends the program when it cannot be done. Paths have no "." or "..", and none of their directories is a link. */
void tree_directory(const char *path);
void tree_symlink(const char *path, const char *target, const struct attributes *attributes);
void tree_hardlink(const char *path, const char *target);
void tree_node(const char *path, uint32_t type, uint32_t major, uint32_t minor, const struct attributes *attributes);
int tree_file(const char *path);
void tree_file_done(int file, const char *path, const struct attributes *attributes);
void tree_attributes(const char *path, const struct attributes *attributes);
void tree_sync(void);

/* ---- confine.c ---- */

/* From here on there is nothing but the tree: no other file, program, network or device. */
void confine(int tree);

/* ---- unpack.c: the end ---- */

/* Says that this could not be done to `path`, by the errno at hand. */
_Noreturn void failed(const char *operation, const char *path);
/* What cannot happen, or only when the other side does not keep to the protocol. */
_Noreturn void give_up(const char *why);
/* The next text of a command: u32 length and bytes. */
const uint8_t *next_text(const uint8_t **at, const uint8_t *end, uint32_t *length);

static inline uint32_t number32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static inline uint64_t number64(const uint8_t *bytes)
{
    return number32(bytes) | (uint64_t)number32(bytes + 4) << 32;
}

#endif
