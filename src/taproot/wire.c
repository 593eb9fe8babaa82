/* See wire.h. Byte by byte, so that it means the same on every machine and needs no alignment. */
#include "wire.h"

#include <string.h>

struct reader reader_over(uint8_t *payload, size_t length)
{
    return (struct reader){.at = payload, .end = payload + length, .bad = false};
}

bool reader_done(const struct reader *reader)
{
    return !reader->bad && reader->at == reader->end;
}

void reader_reject(struct reader *reader)
{
    reader->bad = true;
}

/* The next `length` bytes, or NULL. All bounds are checked here. */
static uint8_t *take(struct reader *reader, size_t length)
{
    if (reader->bad || (size_t)(reader->end - reader->at) < length) {
        reader->bad = true;
        return NULL;
    }
    uint8_t *bytes = reader->at;
    reader->at += length;
    return bytes;
}

static uint64_t take_integer(struct reader *reader, size_t length)
{
    const uint8_t *bytes = take(reader, length);
    uint64_t value = 0;
    if (!bytes) return 0;
    for (size_t i = 0; i < length; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

uint8_t take_u8(struct reader *reader)
{
    return (uint8_t)take_integer(reader, 1);
}

uint16_t take_u16(struct reader *reader)
{
    return (uint16_t)take_integer(reader, 2);
}

uint32_t take_u32(struct reader *reader)
{
    return (uint32_t)take_integer(reader, 4);
}

uint64_t take_u64(struct reader *reader)
{
    return take_integer(reader, 8);
}

bool take_flag(struct reader *reader)
{
    const uint8_t value = take_u8(reader);
    if (value > 1) reader_reject(reader);
    return value == 1;
}

uint32_t take_count(struct reader *reader, uint32_t most)
{
    const uint32_t count = take_u32(reader);
    if (count > most) reader_reject(reader);
    return reader->bad ? 0 : count;
}

const uint8_t *take_blob(struct reader *reader, uint32_t longest, uint32_t *length)
{
    static const uint8_t nothing[1];
    *length = take_count(reader, longest);
    const uint8_t *bytes = take(reader, *length);
    if (bytes) return bytes;
    *length = 0;
    return nothing;
}

/*
 * A string on the wire has no NUL behind it, and the byte there belongs to the next field. The four bytes of its
 * length are done with, though: the text moves one to the left, over the last of them, which makes room for the NUL.
 */
char *take_string(struct reader *reader, uint32_t longest)
{
    static char nothing[1];
    const uint32_t length = take_count(reader, longest);
    uint8_t *bytes = take(reader, length);
    if (!bytes || memchr(bytes, 0, length)) {
        reader_reject(reader);
        return nothing;
    }
    char *text = (char *)(bytes - 1);
    memmove(text, bytes, length);
    text[length] = '\0';
    return text;
}

static void put(struct writer *writer, const void *bytes, size_t length)
{
    if (writer->overflow || writer->size - writer->length < length) {
        writer->overflow = true;
        return;
    }
    memcpy(writer->bytes + writer->length, bytes, length);
    writer->length += length;
}

static void put_integer(struct writer *writer, uint64_t value, size_t length)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    put(writer, bytes, length);
}

void put_u8(struct writer *writer, uint8_t value)
{
    put_integer(writer, value, 1);
}

void put_u16(struct writer *writer, uint16_t value)
{
    put_integer(writer, value, 2);
}

void put_u32(struct writer *writer, uint32_t value)
{
    put_integer(writer, value, 4);
}

void put_u64(struct writer *writer, uint64_t value)
{
    put_integer(writer, value, 8);
}

void put_blob(struct writer *writer, const void *bytes, uint32_t length)
{
    put_u32(writer, length);
    put(writer, bytes, length);
}

void put_string(struct writer *writer, const char *text)
{
    put_blob(writer, text, (uint32_t)strlen(text));
}

uint8_t *place_of_blob(struct writer *writer, size_t ahead)
{
    return writer->bytes + writer->length + ahead + 4;
}

void put_placed_blob(struct writer *writer, uint32_t length)
{
    put_u32(writer, length);
    if (writer->overflow || writer->size - writer->length < length) writer->overflow = true;
    else writer->length += length;
}
