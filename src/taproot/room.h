/*
 * A root file system of a program's own, in a mount namespace of its own: in memory, not to be written, and in it nothing of the
 * host but what is named. Whoever takes the program over finds no file there that it was not given.
 *
 * What is named is an absolute path, and seen there read-only:
 *   a directory                       with all in it, but what is mounted below
 *   a symbolic link to a directory    the same link: name the directory, too
 *   anything else                     what it leads to
 * What the host does not have is left out. Besides there are /dev/{null,zero,full,random,urandom,fd}, /proc, read-only, where a program
 * that is not root sees itself alone, and /lent, where it finds what it is lent while it runs (lend.h).
 */
#ifndef ROOM_H
#define ROOM_H

/* Takes root's rights; afterwards `paths` of the host, `count` of them, are all there is. Ends the program when it cannot be. */
void room_enter(const char *const *paths, int count);

#endif
