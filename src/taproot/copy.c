/*
 * copy FROM TO [LIKE]: a regular file's content in a new file, on disk when this ends. Where the file system can, the two share
 * their blocks; else what is written in FROM is copied, and its holes stay holes. TO must not be there; it belongs to its owner alone, or,
 * with LIKE, to whom that file belongs, with its mode.
 *
 * Trap: nobody may write to FROM meanwhile. On failure what there is of TO is taken away; if this is killed, it stays.
 *
 * Exit codes: 66 FROM cannot be read, 73 TO cannot be made or written (73 also when the disk is full), 64 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "opened.h"

/* linux/fs.h has it, which musl does not bring along */
#ifndef FICLONE
#define FICLONE _IOW(0x94, 9, int)
#endif

enum { PIECE = 1 << 20 };
enum { USAGE = 64, NO_INPUT = 66, NO_OUTPUT = 73 };

static char piece[PIECE];
/* What is to be taken away on failure. */
static const char *made;

static _Noreturn void fail(int code, const char *what)
{
    fprintf(stderr, "copy: %s: %s\n", what, strerror(errno));
    if (made != NULL) unlink(made);
    exit(code);
}

/* What lies between two places of both files, by hand: copy_file_range is not to be had between all file systems. */
static void by_hand(int from, int to, off_t at, off_t end)
{
    while (at < end) {
        const off_t left = end - at;
        const ssize_t got = pread(from, piece, left < PIECE ? (size_t)left : PIECE, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(NO_INPUT, "reading");
        if (got == 0) return;
        for (ssize_t written = 0; written < got;) {
            const ssize_t now = pwrite(to, piece + written, (size_t)(got - written), at + written);
            if (now < 0 && errno == EINTR) continue;
            if (now < 0) fail(NO_OUTPUT, "writing");
            written += now;
        }
        at += got;
    }
}

static void range(int from, int to, off_t at, off_t end)
{
    while (at < end) {
        off_t in = at, out = at;
        const ssize_t moved = copy_file_range(from, &in, to, &out, (size_t)(end - at), 0);
        if (moved < 0 && errno == EINTR) continue;
        if (moved < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO)) fail(NO_OUTPUT, "writing");
        if (moved <= 0) {
            by_hand(from, to, at, end);
            return;
        }
        at += moved;
    }
}

static void data(int from, int to, off_t size)
{
    for (off_t at = 0; at < size;) {
        const off_t begin = lseek(from, at, SEEK_DATA);
        if (begin < 0 && errno == ENXIO) return; /* a hole up to its end */
        if (begin < 0) {
            range(from, to, at, size);
            return;
        }
        off_t end = lseek(from, begin, SEEK_HOLE);
        if (end < 0) end = size;
        range(from, to, begin, end);
        at = end;
    }
}

int main(int count, char **words)
{
    if (count != 3 && count != 4) {
        fprintf(stderr, "usage: copy FROM TO [LIKE]\n");
        return USAGE;
    }
    const int from = opened(words[1], false, false);
    struct stat what, like;
    if (from < 0 || fstat(from, &what) != 0) fail(NO_INPUT, words[1]);
    if (!S_ISREG(what.st_mode)) {
        errno = EINVAL;
        fail(NO_INPUT, words[1]);
    }
    const int to = open(words[2], O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0) fail(NO_OUTPUT, words[2]);
    made = words[2];
    if (ioctl(to, FICLONE, from) != 0) {
        if (ftruncate(to, what.st_size) != 0) fail(NO_OUTPUT, words[2]);
        data(from, to, what.st_size);
    }
    if (count == 4 && stat(words[3], &like) == 0 &&
        (fchown(to, like.st_uid, like.st_gid) != 0 || fchmod(to, like.st_mode & 07777) != 0))
        fail(NO_OUTPUT, words[2]);
    if (fsync(to) != 0 || close(to) != 0) fail(NO_OUTPUT, words[2]);
    return 0;
}
