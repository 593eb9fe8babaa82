/* See lend.h. */
#define _GNU_SOURCE
#include "lend.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* From linux/mount.h and asm/unistd.h, which not every C library brings. */
enum { OPEN_TREE = 428, MOVE_MOUNT = 429, MOUNT_SETATTR = 442 };
enum { CLONED = 1, FROM_DESCRIPTOR = 4, NO_WRITING = 0x1, NO_SETUID = 0x2, NO_DEVICES = 0x4, NO_PROGRAMS = 0x8 };
enum { TEMPORARY = 0x01021994 }; /* TMPFS_MAGIC of linux/magic.h */
struct attributes {
    uint64_t set, clear, propagation, user_namespace;
};

/* Into the mounts of a process, which are not ours. ESRCH: it has ended. */
static bool enter(pid_t pid)
{
    char path[64];
    struct stat ours, its;
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
    const int mounts = open(path, O_RDONLY | O_CLOEXEC);
    if (mounts < 0) {
        if (errno == ENOENT) errno = ESRCH;
        return false;
    }
    bool done = fstat(mounts, &its) == 0 && stat("/proc/self/ns/mnt", &ours) == 0;
    if (done && its.st_dev == ours.st_dev && its.st_ino == ours.st_ino) {
        errno = EXDEV;
        done = false;
    }
    done = done && setns(mounts, CLONE_NEWNS) == 0;
    const int why = errno;
    close(mounts);
    errno = why;
    return done;
}

/* A copy of a place, and where in it its last name begins. */
static bool placed(const char *name, char place[PATH_MAX], char **slash)
{
    const int length = snprintf(place, PATH_MAX, "%s", name);
    *slash = strrchr(place, '/');
    if (length > 1 && length < PATH_MAX && place[0] == '/' && *slash > place && !strstr(place, "/..")) return true;
    errno = EINVAL;
    return false;
}

/* Nothing is at the place any more, nor above it when there is nothing else. */
static bool clear(char *place, char *slash)
{
    if (umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != ENOENT && errno != EINVAL) return false;
    if (unlink(place) != 0 && errno != ENOENT && rmdir(place) != 0) return false;
    *slash = '\0';
    (void)rmdir(place);
    *slash = '/';
    return true;
}

int lend_begin(const char *path)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0 ||
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m") != 0)
        return -1;
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

bool lend(pid_t pid, int file, const char *where, bool writes)
{
    struct stat what;
    char place[PATH_MAX], *slash;
    if (!placed(where, place, &slash) || fstat(file, &what) != 0) return false;
    const int tree = (int)syscall(OPEN_TREE, file, "", AT_EMPTY_PATH | CLONED | O_CLOEXEC);
    if (tree < 0) return false;
    const bool device = S_ISBLK(what.st_mode);
    const struct attributes attributes = {
        .set = NO_SETUID | NO_PROGRAMS | (uint64_t)(device ? 0 : NO_DEVICES) | (uint64_t)(writes ? 0 : NO_WRITING)};
    if (syscall(MOUNT_SETATTR, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) return false;
    if (!enter(pid) || !clear(place, slash)) return false;
    *slash = '\0';
    if (mkdir(place, 0755) != 0 && errno != EEXIST) return false;
    /* never among files that somebody keeps */
    struct statfs around;
    if (statfs(place, &around) != 0 || around.f_type != TEMPORARY) {
        (void)rmdir(place);
        errno = EXDEV;
        return false;
    }
    *slash = '/';
    if (S_ISDIR(what.st_mode)) {
        if (mkdir(place, 0755) != 0) return false;
    } else {
        const int made = open(place, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (made < 0) return false;
        close(made);
    }
    return syscall(MOVE_MOUNT, tree, "", AT_FDCWD, place, FROM_DESCRIPTOR) == 0;
}

bool lend_back(pid_t pid, const char *where)
{
    char place[PATH_MAX], *slash;
    if (!placed(where, place, &slash)) return false;
    if (!enter(pid)) return errno == ESRCH;
    return clear(place, slash);
}
