/*
 * Bounded reader and writer of frames (PROTOCOL.md, "Encoding"). Knows types of fields, not of frames.
 *
 * The reader works in place on one frame's payload and is sticky: after the first field that does not fit every take_
 * returns 0 or an empty string and reader_done() is false, so a handler reads all its fields and asks once.
 *
 * Traps: take_string() writes into the frame (see there), so a frame is read once; strings live until the next frame.
 * The writer never grows: callers make sure of the room first (answers_have_room()).
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_LONGEST 262144u /* of the type and payload, as PROTOCOL.md bounds it */
#define FRAME_HEADER 4u

struct reader {
    uint8_t *at;
    uint8_t *end;
    bool bad;
};

struct reader reader_over(uint8_t *payload, size_t length);
bool reader_done(const struct reader *reader); /* every field fitted, and nothing is left over */
void reader_reject(struct reader *reader);     /* for a field whose value is outside its range */
uint8_t take_u8(struct reader *reader);
uint16_t take_u16(struct reader *reader);
uint32_t take_u32(struct reader *reader);
uint64_t take_u64(struct reader *reader);
bool take_flag(struct reader *reader);                       /* u8, 0 or 1 */
uint32_t take_count(struct reader *reader, uint32_t most);   /* of a list */
char *take_string(struct reader *reader, uint32_t longest);  /* NUL-terminated, never NULL */
const uint8_t *take_blob(struct reader *reader, uint32_t longest, uint32_t *length);

/* Writes into a buffer that somebody else owns. Beyond `size` nothing is written and `overflow` is set. */
struct writer {
    uint8_t *bytes;
    size_t size;
    size_t length;
    bool overflow;
};

void put_u8(struct writer *writer, uint8_t value);
void put_u16(struct writer *writer, uint16_t value);
void put_u32(struct writer *writer, uint32_t value);
void put_u64(struct writer *writer, uint64_t value);
void put_blob(struct writer *writer, const void *bytes, uint32_t length);
void put_string(struct writer *writer, const char *text);
/* Where a blob would go if `ahead` bytes of fields and its length came first; then the blob that was put there. */
uint8_t *place_of_blob(struct writer *writer, size_t ahead);
void put_placed_blob(struct writer *writer, uint32_t length);

#endif
