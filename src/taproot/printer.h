/*
 * The kernel's log on a machine, written by a thread of its own: whoever writes to it also prints on the consoles what
 * nobody has printed yet, and a serial line that takes nothing holds the writer for a second per line. PID 1 and its brain
 * must not stand still for that, so they write to a pipe, which never blocks and loses what does not fit.
 *
 * A console that takes nothing is silenced after a few such lines, since the kernel's own messages would stop a processor
 * just so; it is tried again every minute.
 */
#ifndef PRINTER_H
#define PRINTER_H

/* A descriptor that takes one entry of the log per write, at most 4096 bytes; -1 where there is no kernel log. */
int printer_open(void);
/* The same for a brain, as an open file of its own: it may change its flags. -1 where there is no printer. */
int printer_copy(void);
/* Waits until all is printed, but not for long. */
void printer_drain(void);

#endif
