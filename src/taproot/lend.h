/*
 * What a program that was started by launch gets to see while it runs: one file or directory more, at a place in its own mounts. It is
 * seen there only, by nobody but that program, and gone with it at the latest. For such places a room has /lent (room.h); to a
 * program without a room launch gives a directory for them (lend_begin).
 */
#ifndef LEND_H
#define LEND_H

#include <stdbool.h>
#include <sys/types.h>

/* In a room. */
#define LENT "/lent"

/* Mounts of our own, and in them an empty directory at the directory `path`: its descriptor, or -1. */
int lend_begin(const char *path);
/* Shows `file` to the process `pid` at `place`; what was there is taken away first. False: errno says why. */
bool lend(pid_t pid, int file, const char *place, bool writes);
/* Takes it away; fine when it is not there, or the process. What the program has open stays open to it. */
bool lend_back(pid_t pid, const char *place);

#endif
