/*
 * framer: tells headers from contents in a tar, and nothing else. It judges nothing: what it takes for a content the brain, which
 * reads the same headers, must take for one too, or refuses the layer. So a header that is wrong is simply passed on.
 *
 * As the brain's reader (TarReader.ts): only files have contents; a PAX size counts before that of the header; extended headers
 * are passed on whole.
 */
#include "unpack.h"

#include <string.h>

enum { BLOCK = 512, PAX_MOST = 1 << 20 };

static uint8_t block[BLOCK];
static size_t block_filled;
static unsigned zero_blocks;
/* Bytes of an extended header, padding included, that are still to come; those of its text; whether it is a PAX one. */
static uint64_t extended_left, extended_text;
static bool extended_is_pax;
static uint8_t pax[PAX_MOST];
static size_t pax_filled;
static bool has_pax_size;
static uint64_t pax_size;
static struct span next = {HEADERS, 0};

static uint64_t padded(uint64_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

static bool is_space(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* The size in a header; 0 when it is none, which the brain refuses. */
static uint64_t size_field(const uint8_t *field)
{
    uint64_t value = 0;
    if (field[0] & 0x80) {
        if (field[0] & 0x40) return 0;
        for (int i = 0; i < 12; i++) {
            if (value >> 53) return 0;
            value = value << 8 | (i == 0 ? field[0] & 0x3fU : field[i]);
        }
        return value >> 53 ? 0 : value;
    }
    int at = 0;
    while (at < 12 && is_space(field[at])) at++;
    for (; at < 12 && field[at] >= '0' && field[at] <= '7'; at++) value = value << 3 | (uint64_t)(field[at] - '0');
    return value;
}

/* The last "size" among the records of a PAX header, when it is a number. */
static void read_pax(void)
{
    has_pax_size = false;
    for (size_t at = 0; at < pax_filled;) {
        size_t length = 0, digits = at;
        for (; digits < pax_filled && pax[digits] >= '0' && pax[digits] <= '9' && length < PAX_MOST; digits++)
            length = length * 10 + (size_t)(pax[digits] - '0');
        if (digits == at || digits >= pax_filled || pax[digits] != ' ' || length <= digits - at || length > pax_filled - at) return;
        const uint8_t *record = pax + digits + 1, *end = pax + at + length - 1;
        at += length;
        if (end - record < 6 || memcmp(record, "size=", 5) != 0) continue;
        uint64_t value = 0;
        bool number = end - record - 5 <= 16;
        for (const uint8_t *digit = record + 5; digit < end; digit++) {
            if (*digit < '0' || *digit > '9') number = false;
            else value = value * 10 + (uint64_t)(*digit - '0');
        }
        if (!number || value >> 53) return;
        has_pax_size = true;
        pax_size = value;
    }
}

static void take_header(void)
{
    static const uint8_t zeros[BLOCK];
    if (memcmp(block, zeros, BLOCK) == 0) {
        if (++zero_blocks == 2) next = (struct span){REST, 0};
        return;
    }
    zero_blocks = 0;
    const uint8_t flag = block[156];
    if (flag == 'x' || flag == 'g' || flag == 'L' || flag == 'K') {
        extended_text = size_field(block + 124);
        extended_left = padded(extended_text);
        extended_is_pax = flag == 'x';
        pax_filled = 0;
        if (extended_is_pax && extended_left == 0) has_pax_size = false;
        return;
    }
    const uint64_t size = has_pax_size ? pax_size : size_field(block + 124);
    has_pax_size = false;
    if ((flag == '0' || flag == '\0' || flag == '7') && size > 0) next = (struct span){CONTENT, padded(size)};
}

static void take_extended(const uint8_t *bytes, size_t length)
{
    const size_t text = length < extended_text ? length : (size_t)extended_text;
    const size_t room = PAX_MOST - pax_filled;
    if (extended_is_pax) {
        memcpy(pax + pax_filled, bytes, text < room ? text : room);
        pax_filled += text < room ? text : room;
    }
    extended_text -= text;
    extended_left -= length;
    if (extended_left == 0 && extended_is_pax) read_pax();
}

size_t framer_take(const uint8_t *bytes, size_t length)
{
    next = (struct span){next.kind == REST ? REST : HEADERS, 0};
    size_t taken = 0;
    while (taken < length && next.kind == HEADERS) {
        const size_t left = length - taken;
        if (extended_left > 0) {
            const size_t count = left < extended_left ? left : (size_t)extended_left;
            take_extended(bytes + taken, count);
            taken += count;
            continue;
        }
        const size_t count = left < BLOCK - block_filled ? left : BLOCK - block_filled;
        memcpy(block + block_filled, bytes + taken, count);
        block_filled += count;
        taken += count;
        if (block_filled < BLOCK) continue;
        block_filled = 0;
        take_header();
    }
    return taken;
}

struct span framer_next(void)
{
    return next;
}
