/*
 * The channel to the brain: two fixed buffers around one stream socket. What may be asked is in requests.h, what is said in
 * answers.h.
 *
 * What is owed to the brain is not queued as bytes but as facts: an entry in the queue of process.h, a finished
 * helper, the place in the greeting. A frame is made when there is room for it. So a brain that does not read costs
 * nothing and loses nothing: requests stop being read, and what it is owed waits in the tables.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "taproot.h"

/* How the conversation stands; for requests.c and answers.c. */
struct conversation {
    int descriptor;         /* or -1 */
    bool greeted;           /* HELLO came */
    bool deaf;              /* FAULT was said: nothing more is handled */
    bool hung_up;           /* the other side reads no more: what is sent vanishes */
    bool ended;             /* the other side's end of file */
    uint64_t greeting_next; /* id of the next PROCESS of the greeting, or 0: done */
};
extern struct conversation conversation;

/* Takes a connected stream socket (or another descriptor that can be read and written) and waits for HELLO. */
bool channel_open(int descriptor);
bool channel_is_open(void);
/* Ends it: what was on the way is dropped, what the next brain has to know stays in the tables. */
void channel_close(void);
/* Reads once. False: nothing was there. */
bool channel_receive(void);
/* The brain was reaped: handles what it had still sent, and closes. */
void channel_drain(void);
/* After all events of a turn: handles what can be handled, sends what can be sent, and sets what to wait for. */
void channel_turn(void);
/* Tells the brain to stop the tree, as soon as it has been greeted. */
void channel_announce_stop(uint8_t why, uint8_t action, uint32_t deadline_ms);

#endif
