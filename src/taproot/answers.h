/*
 * What taproot says to the brain: one fixed buffer, and every frame of PROTOCOL.md that goes into it.
 *
 * Trap: callers make sure of the room first; a frame that does not fit is dropped, and said to be a bug.
 */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "process.h"
#include "wire.h"

enum {
    ROOM_FOR_ANSWER = 1024,                 /* of one request; also any single small frame */
    ROOM_FOR_OUTPUT = OUTPUT_LONGEST + 256, /* and the EXITED and INPUT_TAKEN of the same entry */
};
enum refusal { TABLE_FULL = 1, NO_PROCESS = 2, NOT_A_CHILD = 3, SYSTEM_CALL = 4, INVALID = 5 };

bool answers_have_room(size_t length);
/* Writes what the brain takes; true when that emptied the buffer, so that there is room for what is still owed. */
bool answers_flush(void);
/* Something has not been written yet. */
bool answers_left(void);
/* Drops what has not been written yet, for these bytes. */
void answers_restart(const uint8_t *bytes, size_t length);

/* The greeting: WELCOME, and a PROCESS for each entry, which are put one by one as there is room. */
void answer_welcome(void);
void answer_process(struct process *process);
/* The last frame: nothing more is handled. */
void answer_fault(const char *text);
void answer_done(uint32_t request);
void answer_refused(uint32_t request, enum refusal reason, int error, const char *text);
void answer_spawned(uint32_t request, const struct process *process);
void answer_exited(const struct process *process);
void answer_input_taken(uint64_t id, uint32_t bytes, bool shut);
/* False: nothing is there yet, and nothing was put. */
bool answer_output(struct process *process, uint8_t stream);
/* Of an entry that is no more. */
void answer_output_end(uint64_t id, uint8_t stream, uint64_t consumed);
void answer_stopping(uint8_t why, uint8_t action, uint32_t deadline_ms);
void answer_status(uint32_t request);

#endif
