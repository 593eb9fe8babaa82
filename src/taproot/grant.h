/*
 * The right to open one file, for one user, as an entry of the file's access control list (acl(5)). Nobody else has more or less for
 * it; while it is there, the group's bits in the file's mode show the list's mask.
 *
 * Trap: it stays until it is withdrawn, whoever that user is by then.
 */
#ifndef GRANT_H
#define GRANT_H

#include <stdbool.h>
#include <stdint.h>

/* To read it, or to read and write; nothing is done when everybody may. False with errno: the file system has no such lists, or is not to be written. */
bool grant(int file, uint32_t user, bool writes);

/* Takes it back; fine when there is none, or no such file. False with errno. */
bool withdraw(const char *path, uint32_t user);

#endif
