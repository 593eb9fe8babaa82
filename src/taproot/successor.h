/*
 * The successor: a brain that another brain has asked for in its own place (an upgrade). It is on trial until it says that it
 * does its work (CONFIRM), and given up when it does not keep itself up; then the brain of the command line has its turn again,
 * and is told in WELCOME what became of the other.
 *
 *   event \ state | none, given up | trial                                  | proven
 *   --------------+----------------+----------------------------------------+---------------------------------
 *   SUCCEED       | trial          | trial, of the new one                  | trial, of the new one
 *   CONFIRM       | -              | proven                                 | -
 *   time is over  | -              | condemned; when reaped: given up       | -
 *   reaped        | -              | given up, when it was one too many, or | given up, when it was one of too
 *                 |                | it speaks another protocol             | many in a row that ended soon
 *
 * Without arguments SUCCEED asks for the brain of the command line, which needs no trial: nothing is behind it.
 * Which brain that is, what it may take and what is chosen after it is decided by brains. Nothing of this is on a disk: a
 * taproot that starts anew starts with the brain of its command line, which chooses again.
 */
#ifndef SUCCESSOR_H
#define SUCCESSOR_H

#include "brain.h"

#define SUCCESSOR_ARGUMENTS 32

enum successor_state { SUCCESSOR_NONE = 0, SUCCESSOR_TRIAL = 1, SUCCESSOR_PROVEN = 2, SUCCESSOR_GIVEN_UP = 3 };
enum successor_fault {
    FAULT_NONE = 0,
    FAULT_ENDED = 1,    /* too often, on trial */
    FAULT_LATE = 2,     /* it did not CONFIRM in time */
    FAULT_PROTOCOL = 3, /* it speaks no version that taproot does */
    FAULT_UNSTABLE = 4, /* it was proven, and then ended soon after its start, too often in a row */
};

struct successor {
    uint8_t state, fault;
    struct brain_end end; /* the last of one that was given up */
};
extern struct successor successor;

/* From now on this is the brain; without arguments that of the command line. False: it does not fit, nothing has changed. */
bool successor_set(char **arguments, uint32_t count, uint32_t patience_ms, uint8_t tries);
/* It is the brain that runs, or would. */
bool successor_is_brain(void);
char **successor_arguments(void);
void successor_started(void);    /* its time runs from the first start */
void successor_speaks_not(void); /* HELLO came, with no version that taproot speaks */
void successor_confirm(void);
int64_t successor_deadline(void); /* clock_ms by which it must CONFIRM, or -1 */
/* It ended, as one of `brief` in a row that did so soon after their start; true: it is given up. */
bool successor_ended(uint32_t brief, const struct brain_end *end);

#endif
