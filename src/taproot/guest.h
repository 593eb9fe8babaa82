/*
 * The brain of a guest: whoever is connected at a virtio-serial port of this machine (--guest NAME), which is the brain of the
 * host. It is away when nobody is connected; processes go on, and their exits are kept until a brain has acknowledged them.
 *
 *   event \ state | absent (no such port yet) | waiting (for a call)           | in a session (channel.h)
 *   --------------+---------------------------+--------------------------------+---------------------------------
 *   time          | look for it               | -                              | -
 *   a call        | -                         | answer it: session             | answer it: the next session
 *   other bytes   | -                         | open the port anew             | frames
 *   hang-up       | -                         | open the port anew, as soon as | open the port anew, the same
 *                 |                           | anything had come              |
 *   fault         | -                         | -                              | open the port anew
 *
 * A port is no socket: a connection that ends just as the next begins may look like one, and what had been sent in the old
 * may arrive in the new. So each begins with a call of the brain, 16 bytes that no frame can begin with and 16 at random,
 * and with the guest's answer, other 16 bytes and the same at random; whatever the brain reads before that answer is of an
 * older connection. Opening the port anew drops what has come in and was not read.
 *
 * Traps: the port cannot tell the other side that it was closed: a brain that hears nothing calls again, and when that does not
 * help (half a frame of its predecessor swallows the calls) hangs up for a while. A call that is repeated before HELLO, because
 * the guest took long to come up, is not answered twice.
 */
#ifndef GUEST_H
#define GUEST_H

#include "taproot.h"

enum { GUEST_CALL = 32 }; /* bytes of a call, and of the answer */

/* Does what is due, and says when there will be something again (clock_ms, or -1). */
int64_t guest_tick(int64_t now);
/* The loop says that something has happened at the waiting port (TOKEN_PORT). */
void guest_event(void);
/* A brain is connected, and its session goes on. */
bool guest_is_connected(void);
/* These bytes are a call, or the beginning of one. */
bool guest_is_call(const uint8_t *bytes, size_t length);
/* Writes the answer to a call. */
void guest_answer(const uint8_t *call, uint8_t *answer);

#endif
