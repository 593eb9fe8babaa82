/*
 * The hardware watchdog: a device that resets the machine when it is not fed in time.
 *
 * It is fed as long as taproot's loop turns and a brain, the ordinary or the rescue one, has been heard within
 * `watchdog_patience_ms`; and while everything is being stopped, which has deadlines of its own. What is left for it are the
 * cases that nothing here can heal: a kernel or a taproot that hangs, and a machine on which no brain lives.
 *
 * Trap: an opened watchdog is not closed again, so a taproot that ends is the end of the machine. That is meant.
 */
#ifndef WATCHDOG_H
#define WATCHDOG_H

#include "taproot.h"

/* Opens and starts the one of the options, if there is one. */
void watchdog_open(void);
/* In what time it resets the machine that does not feed it, and the patience; 0, or an errno. */
int watchdog_set(int seconds, int64_t patience_ms);
/* Feeds it if that is due and somebody is `alive`; when there will be something again (clock_ms, or -1). */
int64_t watchdog_tick(bool alive);

#endif
