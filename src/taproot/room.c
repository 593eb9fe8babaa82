/* See room.h. */
#define _GNU_SOURCE
#include "room.h"

#include "lend.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OS_ERROR = 71 };

/* Every host has it, and nothing in it is needed until it is mounted anew. */
#define STAGE "/proc"

static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "launch: a root of its own: %s: %s\n", what, strerror(errno));
    exit(OS_ERROR);
}

/* What is above a place on the stage. */
static void make_parents(char *place)
{
    for (char *slash = strchr(place + sizeof STAGE, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(place, 0755) != 0 && errno != EEXIST) fail(place);
        *slash = '/';
    }
}

static void show(const char *path)
{
    char place[PATH_MAX], leads[PATH_MAX];
    struct stat itself, what;
    const int length = snprintf(place, sizeof place, STAGE "%s", path);
    if (path[0] != '/' || length < 0 || (size_t)length >= sizeof place) {
        errno = EINVAL;
        fail(path);
    }
    if (lstat(path, &itself) != 0 || stat(path, &what) != 0) {
        if (errno != ENOENT && errno != ENOTDIR) fail(path);
        return;
    }
    make_parents(place);
    if (S_ISLNK(itself.st_mode) && S_ISDIR(what.st_mode)) {
        const ssize_t end = readlink(path, leads, sizeof leads - 1);
        if (end < 0) fail(path);
        leads[end] = '\0';
        if (symlink(leads, place) != 0 && errno != EEXIST) fail(path);
        return;
    }
    if (S_ISDIR(what.st_mode)) {
        if (mkdir(place, 0755) != 0 && errno != EEXIST) fail(place);
    } else {
        const int file = open(place, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (file < 0) fail(place);
        close(file);
    }
    const bool device = S_ISCHR(what.st_mode) || S_ISBLK(what.st_mode);
    const unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | (device ? MS_NOEXEC : MS_NODEV);
    if (mount(path, place, NULL, MS_BIND, NULL) != 0 || mount(NULL, place, NULL, flags, NULL) != 0) fail(path);
}

/* The stage becomes the root; the one before is out of everybody's reach. */
static void move_in(void)
{
    if (chdir(STAGE) != 0) fail(STAGE);
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) != 0) fail("leaving the other one");
    } else if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) {
        /* the root of an initramfs cannot be left behind, but covered */
        fail("moving in");
    }
    if (chdir("/") != 0) fail("/");
}

void room_enter(const char *const *paths, int count)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) fail("its mounts");
    if (mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m") != 0) fail(STAGE);
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) show(devices[i]);
    for (int i = 0; i < count; i++) show(paths[i]);
    if (mkdir(STAGE "/proc", 0755) != 0 && errno != EEXIST) fail("/proc");
    if (symlink("/proc/self/fd", STAGE "/dev/fd") != 0) fail("/dev/fd");
    if (mkdir(STAGE LENT, 0755) != 0 || mount("tmpfs", STAGE LENT, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m") != 0)
        fail(LENT);
    move_in();
    /* what stays root could set the kernel's parameters else */
    const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (mount("proc", "/proc", "proc", flags, "hidepid=2") != 0) fail("/proc");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=0755,size=1m") != 0) fail("/");
}
