/*
 * The brain's life: started, heard, condemned, reaped, started again; and the end of everything.
 *
 *   event \ state    | waiting (back-off)   | running                       | condemned (to be killed)
 *   -----------------+----------------------+-------------------------------+-------------------------
 *   time             | start it             | silent too long: condemn      | SIGKILL
 *   frame            | -                    | heard                         | -
 *   fault, end of    | -                    | condemn, with a second's      | -
 *   channel          |                      | grace to end by itself        |
 *   reaped           | -                    | waiting; when stopping: rest  | the same
 *   stop             | rest                 | STOPPING, wait for SHUTDOWN   | rest when reaped
 *
 * A brain that another one has chosen (successor.h) is started in place of the ordinary one until it is given up.
 * Where there is a rescue brain, it is started in place of the ordinary one after several of these in a row that ended
 * soon after their start; when it ends, the ordinary one has its turn again.
 *
 * Stopping goes one way: asked -> brain (TERM, 2 s, KILL) -> rest (all that is left: TERM, 2 s, KILL) -> settled
 * (as PID 1: sync and unmount) -> the end: exit, or as PID 1 reboot(2). A brain that dies while stopping is not
 * started again.
 */
#ifndef BRAIN_H
#define BRAIN_H

#include "taproot.h"

enum brain_ending {
    BRAIN_NONE = 0,
    BRAIN_EXITED = 1,
    BRAIN_SIGNALED = 2,
    BRAIN_SILENT = 3,
    BRAIN_FAULTY = 4,
    BRAIN_NO_HELLO = 5,
    BRAIN_LATE = 6, /* a successor that did not CONFIRM in time */
};
struct brain_end {
    uint8_t how;
    int32_t value;
    uint64_t time;
};
extern struct brain_end brain_last_end;
extern uint32_t brain_starts;

void brain_heard(void);   /* a frame came */
void brain_greeted(void); /* HELLO came */
void brain_condemn(enum brain_ending why, int64_t grace_ms);
void brain_channel_ended(void);
void brain_replace(void); /* it has asked for a successor, and is to go */
bool brain_is(pid_t pid);
bool brain_reaped(pid_t pid, int wait_status); /* false: it was not the brain */

enum stop_why { STOP_SIGNAL = 0, STOP_LIFELINE = 1, STOP_BUTTON = 2, STOP_REQUEST = 3 };
enum stop_action { ACTION_END = 0, ACTION_POWER_OFF = 1, ACTION_RESTART = 2, ACTION_HALT = 3, ACTION_KEXEC = 4 };
void stop_ask(enum stop_why why, enum stop_action action); /* again while stopping: no effect */
void stop_tell(void);                                      /* to a brain that has just said HELLO, if there is a stop */
void stop_now(enum stop_action action);                    /* SHUTDOWN: the tree is stopped */
bool stop_is_ending(void);                                 /* past SHUTDOWN: nothing new is started */

/* A brain has been heard within the watchdog's patience, or everything is being stopped. */
bool brain_is_alive(void);
/* Does what is due, and says when there will be something again (clock_ms, or -1). */
int64_t brain_tick(void);

#endif
