/*
 * unpack 1 BLOB SIZE gzip|zstd|none sha256|sha512|none TREE [ARCHIVE]: unpacks a layer into the empty directory TREE, with a brain
 * that judges it; or, with ARCHIVE (a pipe), passes on those contents that the brain wants, as a tar.
 *
 * The bytes of a layer stay here: this program decompresses them, hashes them, and writes files. The brain gets the headers of the
 * tar, contents left out, decides by them what may be, and says what to make; it never sees a content, and this program never
 * decides by a name. Before it reads the first byte of the blob it has shut itself into TREE (confine.c).
 *
 * Both pipes carry frames: u32 length (of what follows), u8 kind, fields, all little-endian; a text is u32 length and bytes. ATTRIBUTES
 * are u32 mode, u32 uid, u32 gid, i64 seconds, u32 nanoseconds, u32 count, and so often two texts: an extended attribute.
 *
 * To the brain, at standard output:
 *   1 TAR       u64 content, bytes   the next bytes of the tar, and how many after them are left out: a content and its padding
 *   2 REST      u64 count            so many bytes after the archive's end
 *   3 END       u64 missing, digest  of the whole tar; how much of the last content never came
 *   4 BROKEN    why                  the blob cannot be decompressed
 *   5 FAILED    u32 errno, text      what could not be done; it has ended
 *   6 SYNCED
 * From the brain, at standard input:
 *   1 UPTO      u64 count            so much of the blob is there; it may still be written
 *   2 DIRECTORY path
 *   3 FILE      ATTRIBUTES, u64 size, path
 *                                    with the next content, if it has any
 *   4 SYMLINK   ATTRIBUTES, text target, path
 *   5 HARDLINK  text target, path
 *   6 NODE      ATTRIBUTES, u32 type (S_IFMT), u32 major, u32 minor, path
 *   7 DROP      u64 size             the next content is nobody's
 *   8 GIVE      ATTRIBUTES, path     to a directory, when nothing more is put into it; "" is the root
 *   9 SYNC                           all of it is to be on the disk; in an archive, handed on
 *  10 PASS      u64 size, header      into the archive: these bytes, then the next content, if it has any
 * It ends with its input.
 *
 * Trap: it must always read commands, whether or not it can follow them: the content that one waits for may need an UPTO that is
 * behind it. What a brain has still to answer is bounded by not telling it of more headers.
 */
#define _GNU_SOURCE
#include "unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RING = 4 << 20,      /* of the tar, in memory: a power of two */
    PIECE = 256 << 10,   /* decompressed at once: what is hashed next is still in the cache */
    ANSWERS = 256 << 10,
    SPANS = 8192,        /* contents that the brain has been told of and has not decided about */
    QUEUE_ENOUGH = 1 << 20,
    QUEUE_MOST = 64 << 20,
    LITERAL_MOST = 48 << 10,
    BLOCK = 512,
};
enum answer { TAR = 1, REST_OF_TAR, END, BROKEN_BLOB, FAILED, SYNCED };
enum command { UPTO = 1, MAKE_DIRECTORY, MAKE_FILE, MAKE_SYMLINK, MAKE_HARDLINK, MAKE_NODE, DROP, GIVE, SYNC, PASS };

static int blob;
/* -1: files are made, and nothing is passed on. */
static int archive = -1;
static uint64_t blob_size, blob_available;

/* Positions in the tar: what is in the ring is from `kept` to `made`; the brain has been told of all before `framed`. */
static uint8_t ring[RING];
static uint64_t made, framed;
static bool finished, told_end, broken;
static struct {
    uint64_t start, length;
} spans[SPANS];
static size_t span_first, span_count;
/* Of the first span, how much has been dealt with. */
static uint64_t span_done;

static uint8_t answers[ANSWERS];
static size_t answers_at, answers_end;

static uint8_t *queue;
static size_t queue_size, queue_at, queue_end, queue_scanned;

/* The file that a content goes to; -1 while a content is dropped. */
static bool copying;
static int copy_to;
static uint64_t copy_size;
static char copy_path[PATH_MAX];
static struct attributes copy_attributes;
/* Where in the queue its extended attributes are: the queue can move. */
static size_t copy_pairs;

/* ---- answers ---- */

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static void put64(uint8_t *to, uint64_t value)
{
    put32(to, (uint32_t)value);
    put32(to + 4, (uint32_t)(value >> 32));
}

static size_t answer_room(void)
{
    if (answers_at == answers_end) answers_at = answers_end = 0;
    return ANSWERS - answers_end;
}

/* A frame: a number if it has one (`width` bytes), and bytes. There must be room. */
static void answer(enum answer kind, size_t width, uint64_t value, const void *bytes, size_t length)
{
    if (answer_room() < 5 + width + length) give_up("there is no room for an answer");
    uint8_t *at = answers + answers_end;
    put32(at, (uint32_t)(1 + width + length));
    at[4] = (uint8_t)kind;
    for (size_t i = 0; i < width; i++) at[5 + i] = (uint8_t)(value >> (8 * i));
    if (length > 0) memcpy(at + 5 + width, bytes, length);
    answers_end += 5 + width + length;
}

static bool write_answers(void)
{
    if (answers_at == answers_end) return false;
    const ssize_t done = write(STDOUT_FILENO, answers + answers_at, answers_end - answers_at);
    if (done < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (done <= 0) exit(1);
    answers_at += (size_t)done;
    return true;
}

static void write_all_answers(void)
{
    struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};
    while (answers_at != answers_end)
        if (!write_answers()) poll(&output, 1, -1);
}

void failed(const char *operation, const char *path)
{
    char text[PATH_MAX + 256];
    const int error = errno;
    const int length = snprintf(text, sizeof text, "%s %s: %s", operation, path, strerror(error));
    write_all_answers();
    answer(FAILED, 4, (uint32_t)error, text, length < (int)sizeof text ? (size_t)length : sizeof text - 1);
    write_all_answers();
    exit(1);
}

void give_up(const char *why)
{
    fprintf(stderr, "unpack: %s\n", why);
    exit(70);
}

/* ---- the tar ---- */

static uint64_t kept(void)
{
    return span_count > 0 ? spans[span_first].start + span_done : framed;
}

/* What the ring has from a position on, in one piece. */
static size_t in_one_piece(uint64_t from, uint64_t length)
{
    const size_t to_end = RING - (size_t)(from % RING);
    return length < to_end ? (size_t)length : to_end;
}

static bool produce(void)
{
    const uint64_t used = made - kept();
    if (finished || broken || RING - used < PIECE / 4) return false;
    const size_t room = in_one_piece(made, RING - used < PIECE ? RING - used : PIECE);
    size_t count;
    const enum progress progress = decoder_run(blob, blob_available, blob_size, ring + made % RING, room, &count);
    made += count;
    if (progress == BROKEN) broken = true;
    if (progress == FINISHED) finished = true;
    return progress != WANTS_INPUT;
}

static void tell_headers(void)
{
    const size_t room = answer_room() - 13;
    uint8_t *at = answers + answers_end;
    const uint64_t ahead = made - framed;
    const size_t most = in_one_piece(framed, ahead < LITERAL_MOST ? ahead : LITERAL_MOST);
    const size_t taken = framer_take(ring + framed % RING, most < room ? most : room);
    const struct span span = framer_next();
    const uint64_t content = span.kind == CONTENT ? span.length : 0;
    memcpy(at + 13, ring + framed % RING, taken);
    put32(at, (uint32_t)(9 + taken));
    at[4] = TAR;
    put64(at + 5, content);
    answers_end += 13 + taken;
    framed += taken;
    if (content == 0) return;
    spans[(span_first + span_count++) % SPANS].start = framed;
    spans[(span_first + span_count - 1) % SPANS].length = content;
    framed += content;
}

static bool tell(void)
{
    bool any = false;
    while (framed < made && answer_room() > 1024 && span_count < SPANS && queue_end - queue_at < QUEUE_ENOUGH) {
        any = true;
        if (framer_next().kind == REST) {
            answer(REST_OF_TAR, 8, made - framed, NULL, 0);
            framed = made;
        } else tell_headers();
    }
    if (told_end || answer_room() < 1024) return any;
    if (broken) {
        answer(BROKEN_BLOB, 0, 0, decoder_problem(), strlen(decoder_problem()));
    } else if (finished && framed >= made) {
        const char *digest = decoder_digest();
        answer(END, 8, framed - made, digest, strlen(digest));
    } else return any;
    told_end = true;
    return true;
}

/* Into the archive, whose reader may take its time: nobody waits for anything else of us meanwhile. */
static void pass(const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        const ssize_t written = write(archive, bytes, length);
        if (written < 0 && errno != EINTR) failed("write", "the archive");
        if (written <= 0) continue;
        bytes += written;
        length -= (size_t)written;
    }
}

/* Moves on with the content at hand; whether it did. */
static bool copy(void)
{
    if (span_count == 0) give_up("there is no content");
    const uint64_t start = spans[span_first].start, length = spans[span_first].length;
    const uint64_t position = start + span_done;
    const uint64_t there = made - position < length - span_done ? made - position : length - span_done;
    /* an archive may end without the padding of its last content */
    const bool over = finished && there == 0 && span_done >= copy_size;
    if (there == 0 && !over) return false;
    if (over) {
        span_done = length;
    } else if (span_done < copy_size) {
        const uint64_t wanted = copy_size - span_done;
        const size_t piece = in_one_piece(position, there < wanted ? there : wanted);
        if (copy_to >= 0 && copy_to == archive) {
            pass(ring + position % RING, piece);
            span_done += piece;
        } else if (copy_to >= 0) {
            const ssize_t written = write(copy_to, ring + position % RING, piece);
            if (written < 0 && errno != EINTR) failed("write", copy_path);
            span_done += written > 0 ? (uint64_t)written : 0;
        } else span_done += piece;
    } else span_done += there;
    if (span_done < length) return true;
    span_first = (span_first + 1) % SPANS;
    span_count--;
    span_done = 0;
    copying = false;
    if (copy_to < 0) return true;
    if (copy_to == archive) {
        static const uint8_t zeros[BLOCK];
        pass(zeros, (size_t)((BLOCK - copy_size % BLOCK) % BLOCK));
        return true;
    }
    copy_attributes.pairs = queue + copy_pairs;
    tree_file_done(copy_to, copy_path, &copy_attributes);
    return true;
}

/* ---- commands ---- */

static uint32_t next32(const uint8_t **at, const uint8_t *end)
{
    if (end - *at < 4) give_up("a command is too short");
    const uint32_t value = number32(*at);
    *at += 4;
    return value;
}

static uint64_t next64(const uint8_t **at, const uint8_t *end)
{
    const uint64_t low = next32(at, end);
    return low | (uint64_t)next32(at, end) << 32;
}

const uint8_t *next_text(const uint8_t **at, const uint8_t *end, uint32_t *length)
{
    /* without an end: it has been looked at before */
    *length = end ? next32(at, end) : number32(*at);
    if (!end) *at += 4;
    if (end && (uint64_t)(end - *at) < *length) give_up("a command is too short");
    const uint8_t *bytes = *at;
    *at += *length;
    return bytes;
}

static struct attributes next_attributes(const uint8_t **at, const uint8_t *end)
{
    struct attributes found = {.mode = next32(at, end), .uid = next32(at, end), .gid = next32(at, end)};
    found.seconds = (int64_t)next64(at, end);
    found.nanoseconds = next32(at, end);
    found.xattrs = next32(at, end);
    found.pairs = *at;
    for (uint32_t i = 0, length; i < 2 * (uint64_t)found.xattrs; i++) next_text(at, end, &length);
    return found;
}

static void path_of(const uint8_t *bytes, size_t length, char path[PATH_MAX])
{
    if (length >= PATH_MAX || memchr(bytes, 0, length)) give_up("that is no path");
    memcpy(path, bytes, length);
    path[length] = '\0';
}

static void next_path(const uint8_t **at, const uint8_t *end, char path[PATH_MAX])
{
    path_of(*at, (size_t)(end - *at), path);
}

static void next_target(const uint8_t **at, const uint8_t *end, char path[PATH_MAX])
{
    uint32_t length;
    const uint8_t *bytes = next_text(at, end, &length);
    path_of(bytes, length, path);
}

static void begin_copy(int file, uint64_t size)
{
    if (span_count == 0 || spans[span_first].length != (size + BLOCK - 1) / BLOCK * BLOCK) give_up("a content has another size");
    copying = true;
    copy_to = file;
    copy_size = size;
}

static void run(enum command kind, const uint8_t *at, const uint8_t *end)
{
    static char path[PATH_MAX], target[PATH_MAX];
    struct attributes attributes = {0};
    switch (kind) {
    case UPTO:
        break;
    case MAKE_DIRECTORY:
        next_path(&at, end, path);
        tree_directory(path);
        break;
    case MAKE_FILE: {
        copy_attributes = next_attributes(&at, end);
        copy_pairs = (size_t)(copy_attributes.pairs - queue);
        const uint64_t size = next64(&at, end);
        next_path(&at, end, copy_path);
        const int file = tree_file(copy_path);
        if (size == 0) tree_file_done(file, copy_path, &copy_attributes);
        else begin_copy(file, size);
        break;
    }
    case MAKE_SYMLINK:
        attributes = next_attributes(&at, end);
        next_target(&at, end, target);
        next_path(&at, end, path);
        tree_symlink(path, target, &attributes);
        break;
    case MAKE_HARDLINK:
        next_target(&at, end, target);
        next_path(&at, end, path);
        tree_hardlink(path, target);
        break;
    case MAKE_NODE: {
        attributes = next_attributes(&at, end);
        const uint32_t type = next32(&at, end), major = next32(&at, end), minor = next32(&at, end);
        next_path(&at, end, path);
        tree_node(path, type, major, minor, &attributes);
        break;
    }
    case DROP:
        begin_copy(-1, next64(&at, end));
        break;
    case GIVE:
        attributes = next_attributes(&at, end);
        next_path(&at, end, path);
        tree_attributes(path, &attributes);
        break;
    case SYNC:
        if (archive < 0) tree_sync();
        answer(SYNCED, 0, 0, NULL, 0);
        break;
    case PASS: {
        const uint64_t size = next64(&at, end);
        if (archive < 0) give_up("there is no archive");
        pass(at, (size_t)(end - at));
        if (size > 0) begin_copy(archive, size);
        break;
    }
    default:
        give_up("that is no command");
    }
}

/* The whole frame at `at` in the queue: its length with what is before it; 0: it is not there yet. */
static size_t frame_at(size_t at)
{
    if (queue_end - at < 4) return 0;
    const size_t length = number32(queue + at);
    if (length == 0 || length > QUEUE_MOST - 4) give_up("a command has an impossible length");
    return queue_end - at < 4 + length ? 0 : 4 + length;
}

static bool run_commands(void)
{
    for (bool any = false;; any = true) {
        if (copying) {
            if (!copy()) return any;
            continue;
        }
        const size_t count = frame_at(queue_at);
        if (count == 0 || answer_room() < 1024) return any;
        const uint8_t *frame = queue + queue_at;
        queue_at += count;
        run((enum command)frame[4], frame + 5, frame + count);
    }
}

static bool read_commands(void)
{
    /* extended attributes of a file that is being written are still in the queue */
    if (!copying && queue_at > 0) {
        memmove(queue, queue + queue_at, queue_end - queue_at);
        queue_scanned = queue_scanned > queue_at ? queue_scanned - queue_at : 0;
        queue_end -= queue_at;
        queue_at = 0;
    }
    if (queue_size - queue_end < 65536) {
        const size_t size = queue_size == 0 ? 262144 : queue_size * 2;
        if (size > QUEUE_MOST) give_up("there are too many commands");
        uint8_t *more = realloc(queue, size);
        if (!more) give_up("there is no memory");
        queue = more;
        queue_size = size;
    }
    const ssize_t got = read(STDIN_FILENO, queue + queue_end, queue_size - queue_end);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (got <= 0) {
        write_all_answers();
        exit(0);
    }
    queue_end += (size_t)got;
    for (size_t count; (count = frame_at(queue_scanned)) != 0; queue_scanned += count) {
        const uint8_t *at = queue + queue_scanned + 5, *end = queue + queue_scanned + count;
        if (queue[queue_scanned + 4] != UPTO) continue;
        blob_available = next64(&at, end);
        if (blob_available > blob_size) give_up("the blob is too large");
    }
    return true;
}

/* ---- main ---- */

static int opened(const char *path, int how)
{
    const int file = open(path, how | O_CLOEXEC | O_NOCTTY);
    if (file < 0) failed("open", path);
    return file;
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: unpack 1 BLOB SIZE gzip|zstd|none sha256|sha512|none TREE [ARCHIVE]\n");
    exit(64);
}

int main(int count, char **words)
{
    char *rest;
    if ((count != 7 && count != 8) || strcmp(words[1], "1") != 0) usage();
    blob_size = strtoull(words[3], &rest, 10);
    if (*rest != '\0') usage();
    blob = opened(words[2], O_RDONLY);
    const int tree = opened(words[6], O_RDONLY | O_DIRECTORY);
    if (count == 8) archive = opened(words[7], O_WRONLY);
    decoder_open(strcmp(words[4], "gzip") == 0 ? GZIP : strcmp(words[4], "zstd") == 0 ? ZSTD : PLAIN, words[5]);
    tree_open(tree);
    if (fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) != 0 || fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK) != 0) failed("prepare", "pipes");
    confine(tree);
    for (;;) {
        bool moved = read_commands();
        moved = run_commands() || moved;
        moved = produce() || moved;
        moved = tell() || moved;
        moved = write_answers() || moved;
        if (moved) continue;
        struct pollfd pipes[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = STDOUT_FILENO, .events = POLLOUT}};
        poll(pipes, answers_at == answers_end ? 1 : 2, -1);
    }
}
