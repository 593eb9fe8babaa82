/*
 * How files are opened for programs that may not open any themselves (launch.c, hand.c): a regular file or block device that a
 * person named, through links; or (own) a regular file that was made for the program, through no link and under no second name.
 * The descriptor, or -1 with errno.
 */
#ifndef OPENED_H
#define OPENED_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int opened(const char *path, bool writes, bool own)
{
    /* not waiting for anybody at a pipe that somebody has put there */
    const int file = open(path, (writes ? O_RDWR : O_RDONLY) | (own ? O_NOFOLLOW : 0) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat what;
    int wrong = 0;
    if (file < 0) return -1;
    if (fstat(file, &what) != 0) wrong = errno;
    else if (!S_ISREG(what.st_mode) && (own || !S_ISBLK(what.st_mode))) wrong = S_ISDIR(what.st_mode) ? EISDIR : ENODEV;
    else if (own && what.st_nlink != 1) wrong = EMLINK;
    else if (fcntl(file, F_SETFL, 0) != 0) wrong = errno;
    if (wrong == 0) return file;
    close(file);
    errno = wrong;
    return -1;
}

#endif
