/*
 * decoder: a layer's blob, gzip, zstd or plain, becomes its tar. Libraries do it: ISA-L unpacks gzip in half the time of zlib,
 * libgcrypt has the processor's own instructions for digests. A gzip file may have several members, and
 * zeros after the last; what follows on those is refused, as what gzip(1) would leave out after a warning.
 */
#include "unpack.h"

#include <errno.h>
#include <gcrypt.h>
#include <isa-l/igzip_lib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

/* Of the blob at once. */
enum { INPUT = 256 * 1024 };
/* As zstd's own tools: what needs a larger window is refused. */
enum { WINDOW_LOG = 27 };

static enum compression how;
static uint8_t input[INPUT];
static size_t input_at, input_end;
static uint64_t read_so_far;

static struct inflate_state inflating;
/* No member has begun, or the last one has ended. */
static bool between = true;
static bool any_member;
/* Zeros after the last member: nothing but more of them may follow. */
static bool padding;
static ZSTD_DCtx *unpacking;
/* What zstd says is missing of the frame; 0: it is whole. */
static size_t frame_left;
/* It has filled all the room it had: there may be more without any input. */
static bool filled;

static gcry_md_hd_t digest;
static int digest_algorithm;
static char digest_text[2 * 64 + 1];
static char problem[160];

void decoder_open(enum compression compression, const char *algorithm)
{
    how = compression;
    digest_algorithm = strcmp(algorithm, "none") == 0     ? GCRY_MD_NONE
                       : strcmp(algorithm, "sha512") == 0 ? GCRY_MD_SHA512
                                                          : GCRY_MD_SHA256;
    if (!gcry_check_version("1.8.0") || gcry_control(GCRYCTL_DISABLE_SECMEM, 0) || gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0) ||
        gcry_md_open(&digest, digest_algorithm, 0))
        give_up("there is no digest");
    if (how == ZSTD) {
        unpacking = ZSTD_createDCtx();
        if (!unpacking || ZSTD_isError(ZSTD_DCtx_setParameter(unpacking, ZSTD_d_windowLogMax, WINDOW_LOG))) give_up("there is no zstd");
    }
}

const char *decoder_problem(void)
{
    return problem;
}

const char *decoder_digest(void)
{
    if (digest_algorithm == GCRY_MD_NONE) return "";
    const uint8_t *bytes = gcry_md_read(digest, digest_algorithm);
    const unsigned length = gcry_md_get_algo_dlen(digest_algorithm);
    for (unsigned i = 0; i < length; i++) snprintf(digest_text + 2 * i, 3, "%02x", bytes[i]);
    return digest_text;
}

static enum progress broken(const char *why)
{
    snprintf(problem, sizeof problem, "%s", why);
    return BROKEN;
}

static const char *inflate_problem(int error)
{
    switch (error) {
    case ISAL_INVALID_BLOCK: return "invalid block type";
    case ISAL_INVALID_SYMBOL: return "invalid code";
    case ISAL_INVALID_LOOKBACK: return "invalid distance too far back";
    case ISAL_INVALID_WRAPPER: return "incorrect header check";
    case ISAL_UNSUPPORTED_METHOD: return "unknown compression method";
    case ISAL_INCORRECT_CHECKSUM: return "incorrect data check";
    default: return "invalid data";
    }
}

static enum progress gunzip(uint8_t *to, size_t room, size_t *made, bool last)
{
    if (between) {
        if (input_at == input_end) return !last ? WANTS_INPUT : any_member ? FINISHED : broken("unexpected end of file");
        if (any_member && input[input_at] == 0) padding = true;
        if (padding) {
            while (input_at < input_end)
                if (input[input_at++] != 0) return broken("trailing garbage");
            return last ? FINISHED : WANTS_INPUT;
        }
        isal_inflate_init(&inflating);
        inflating.crc_flag = ISAL_GZIP;
        between = false;
    }
    inflating.next_in = input + input_at;
    inflating.avail_in = (uint32_t)(input_end - input_at);
    inflating.next_out = to;
    inflating.avail_out = (uint32_t)room;
    const int error = isal_inflate(&inflating);
    input_at = input_end - inflating.avail_in;
    *made = room - inflating.avail_out;
    if (error != ISAL_DECOMP_OK && error != ISAL_END_INPUT) return broken(inflate_problem(error));
    if (inflating.block_state == ISAL_BLOCK_FINISH) {
        between = true;
        any_member = true;
        return MADE;
    }
    if (*made > 0 || input_at < input_end) return MADE;
    return last ? broken("unexpected end of file") : WANTS_INPUT;
}

static enum progress unpack_zstd(uint8_t *to, size_t room, size_t *made, bool last)
{
    ZSTD_inBuffer in = {input, input_end, input_at};
    ZSTD_outBuffer out = {to, room, 0};
    const size_t before = input_at;
    /* asked again and again with nothing, it takes that for an error */
    if (input_at < input_end || filled) {
        const size_t left = ZSTD_decompressStream(unpacking, &out, &in);
        if (ZSTD_isError(left)) return broken(ZSTD_getErrorName(left));
        /* asked once more with nothing, it speaks of the next frame */
        if (in.pos > before || out.pos > 0) frame_left = left;
        filled = out.pos == room;
    }
    input_at = in.pos;
    *made = out.pos;
    if (in.pos > before || out.pos > 0) return MADE;
    if (!last) return WANTS_INPUT;
    return frame_left > 0 || read_so_far == 0 ? broken("unexpected end of file") : FINISHED;
}

static enum progress copy(uint8_t *to, size_t room, size_t *made, bool last)
{
    const size_t length = input_end - input_at < room ? input_end - input_at : room;
    memcpy(to, input + input_at, length);
    input_at += length;
    *made = length;
    return length > 0 ? MADE : last ? FINISHED : WANTS_INPUT;
}

enum progress decoder_run(int blob, uint64_t available, uint64_t size, uint8_t *to, size_t room, size_t *made)
{
    *made = 0;
    if (input_at == input_end && read_so_far < available) {
        const uint64_t left = available - read_so_far;
        const ssize_t got = pread(blob, input, left < INPUT ? (size_t)left : INPUT, (off_t)read_so_far);
        if (got <= 0) {
            if (got == 0) errno = EIO;
            failed("read", "the blob");
        }
        input_at = 0;
        input_end = (size_t)got;
        read_so_far += (uint64_t)got;
    }
    const bool last = read_so_far == size;
    const enum progress done = how == GZIP ? gunzip(to, room, made, last)
                               : how == ZSTD ? unpack_zstd(to, room, made, last)
                                             : copy(to, room, made, last);
    if (digest_algorithm != GCRY_MD_NONE) gcry_md_write(digest, to, *made);
    return done;
}
