/*
 * Standard input and output of processes: how bytes go between the kernel's pipes and frames.
 *
 * Output stays in the kernel's pipe until the brain has confirmed it: tee(2) copies it out, and only the READ that
 * confirms it takes it off. A terminal cannot be tee'd, so up to TERMINAL_BUFFER bytes of its output are kept here.
 * Input that the process does not take at once waits in a buffer of a fixed pool.
 *
 * Nothing here blocks. What cannot go on now is armed in the loop for one event (EPOLLONESHOT), so a stream that
 * nobody wants costs no wake-up, whatever its process writes.
 */
#ifndef STREAM_H
#define STREAM_H

#include "process.h"
#include "wire.h"

bool streams_open(void); /* once, at start; false: errno */

/* Claims a buffer of the pools for a process to come; false: all are in use. */
bool streams_reserve(bool input, bool terminal, uint16_t *input_buffer, uint16_t *terminal_buffer);
void streams_unreserve(uint16_t input_buffer, uint16_t terminal_buffer);

/* Puts the streams in the loop, once the entry has its descriptors; false: errno, and the entry should be given up. */
bool streams_watch(struct process *process);
/* The loop says that something can go on. */
void streams_event(struct process *process, enum source source);
void streams_close(struct process *process);
/* What the child wrote before exec, if it failed there: kept in the entry's exit until it is reaped. */
void status_read(struct process *process);
/* Moves all streams with their offsets and buffers; READs that wait at `from` are answered with the end. */
void streams_move(struct process *from, struct process *to);
/* The brain is gone: its READs and the input that no process has taken yet are dropped, the streams stay open. */
void streams_forget_brain(struct process *process);
/* Bits of PROCESS: 1 stdin, 2 stdout, 4 stderr, 8 it is a terminal. */
uint8_t streams_that_are_open(const struct process *process);

/* READ. False: the brain broke the rules. */
bool output_want(struct process *process, uint8_t stream, uint64_t consumed, uint32_t limit);
/*
 * Puts the OUTPUT of a waiting READ into `frame`, which has room for OUTPUT_LONGEST and a header. False: there is
 * nothing yet (the loop will tell), and `frame` is as it was.
 */
bool output_serve(struct process *process, uint8_t stream, struct writer *frame);

/* INPUT. False: more is on the way than the brain may send. */
bool input_add(struct process *process, const uint8_t *bytes, uint32_t length);
void input_end(struct process *process);
void input_flush(struct process *process);
/* Listens for the terminal that a process will hand over (an OCI runtime's console socket); -1: errno. */
int console_listen(const char *path);
/* The process has ended: what it has not handed over by now never comes. */
void console_ended(struct process *process);
bool terminal_resize(struct process *process, uint16_t rows, uint16_t columns);

#endif
