/*
 * User namespaces, and mounts seen through them and networks that belong to them; called by the brain, through taproot, whose mount namespace it works in.
 *
 * idmap space FILE FIRST COUNT          makes a user namespace whose users and groups 0 to COUNT-1 are FIRST and up on this host, and
 *                                       mounts it on FILE, which keeps it: no process of its own does
 * idmap network SPACE|- FILE           makes a network namespace that belongs to that user namespace (-: the host's), and mounts it on FILE
 * idmap mount SPACE|- SOURCE TARGET [OPTION]...
 *                                       mounts the directory or file SOURCE at TARGET so that what belongs to root on the disk belongs to
 *                                       root of that user namespace (SPACE: a file of the first kind; -: nothing is mapped).
 *                                       OPTION: ro, nosuid, nodev, noexec. What is mounted below SOURCE is not there.
 *
 * Traps: an id of the disk that the namespace does not have is nobody's through such a mount, and nobody can make one. SOURCE may be
 * /proc/PID/fd/N: what is open there, whatever has its name now.
 *
 * Exit codes: 0 done, 2 the file system of SOURCE (or the kernel) maps no ids, 1 anything else; standard error says why.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* linux/mount.h, linux/fcntl.h; the numbers of the calls are the same on every architecture */
enum { CALL_OPEN_TREE = 428, CALL_MOVE_MOUNT = 429, CALL_MOUNT_SETATTR = 442 };
enum { TREE_CLONE = 1, MOVE_FROM_NOTHING = 4, EMPTY_PATH = 0x1000 };
enum { ATTR_RDONLY = 1, ATTR_NOSUID = 2, ATTR_NODEV = 4, ATTR_NOEXEC = 8, ATTR_IDMAP = 0x100000 };
struct attributes {
    uint64_t set, clear, propagation, space;
};

enum { OTHER = 1, UNMAPPABLE = 2, USAGE = 64 };

static _Noreturn void fail(int code, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(code);
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: idmap space FILE FIRST COUNT | idmap network SPACE|- FILE | idmap mount SPACE|- SOURCE TARGET [ro|nosuid|nodev|noexec]...\n");
    exit(USAGE);
}

static void write_map(pid_t process, const char *name, const char *line)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", process, name);
    const int file = open(path, O_WRONLY | O_CLOEXEC);
    const size_t length = strlen(line);
    if (file < 0 || write(file, line, length) != (ssize_t)length) fail(OTHER, "giving the user namespace its ids");
    close(file);
}

static int open_space(const char *space)
{
    const int opened = open(space, O_RDONLY | O_CLOEXEC);
    if (opened < 0) fail(OTHER, "the user namespace");
    return opened;
}

/* A process in a new namespace of this kind, within the user namespace of `space` (-: ours); ends the program if there is none. */
static pid_t settle(const char *space, int kind, const char *what)
{
    int made[2];
    if (pipe2(made, O_CLOEXEC) != 0) fail(OTHER, "pipe");
    const pid_t child = fork();
    if (child < 0) fail(OTHER, "fork");
    if (child == 0) {
        /* whoever is alone already when it asks for that signal finds nobody to write to */
        close(made[0]);
        if (strcmp(space, "-") != 0 && setns(open_space(space), CLONE_NEWUSER) != 0) fail(OTHER, "the user namespace");
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* setns(2) and exec forget it */
        if (unshare(kind) != 0) fail(UNMAPPABLE, what);
        if (write(made[1], "", 1) == 1) pause();
        _exit(OTHER);
    }
    close(made[1]);
    char byte;
    if (read(made[0], &byte, 1) == 1) return child;
    int status = 0; /* it has said why */
    waitpid(child, &status, 0);
    exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : OTHER);
}

/* Mounts its namespace on the file, which keeps it, and lets the process go. */
static int keep(pid_t settler, const char *name, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", settler, name);
    if (mount(path, file, NULL, MS_BIND, NULL) != 0) fail(OTHER, "keeping the namespace");
    kill(settler, SIGKILL);
    waitpid(settler, NULL, 0);
    return 0;
}

static int make_space(const char *file, const char *first, const char *count)
{
    const pid_t settler = settle("-", CLONE_NEWUSER, "making a user namespace");
    char text[64];
    snprintf(text, sizeof text, "0 %s %s\n", first, count);
    write_map(settler, "uid_map", text);
    write_map(settler, "gid_map", text);
    return keep(settler, "user", file);
}

static int make_network(const char *space, const char *file)
{
    return keep(settle(space, CLONE_NEWNET, "making a network namespace"), "net", file);
}

static uint64_t attribute(const char *word)
{
    static const struct {
        const char *word;
        uint64_t attribute;
    } known[] = {{"ro", ATTR_RDONLY}, {"nosuid", ATTR_NOSUID}, {"nodev", ATTR_NODEV}, {"noexec", ATTR_NOEXEC}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].word, word) == 0) return known[i].attribute;
    usage();
}

static int mount_mapped(const char *space, const char *source, const char *target, char **options)
{
    struct attributes wanted = {0};
    for (; *options; options++) wanted.set |= attribute(*options);
    if (strcmp(space, "-") != 0) {
        wanted.set |= ATTR_IDMAP;
        wanted.space = (uint64_t)open_space(space);
    }
    const int tree = (int)syscall(CALL_OPEN_TREE, AT_FDCWD, source, TREE_CLONE | O_CLOEXEC);
    if (tree < 0) fail(OTHER, source);
    if (syscall(CALL_MOUNT_SETATTR, tree, "", EMPTY_PATH, &wanted, sizeof wanted) != 0)
        fail(errno == EINVAL || errno == ENOSYS || errno == EPERM ? UNMAPPABLE : OTHER, "mapping ids");
    if (syscall(CALL_MOVE_MOUNT, tree, "", AT_FDCWD, target, MOVE_FROM_NOTHING) != 0) fail(OTHER, target);
    return 0;
}

int main(int count, char **words)
{
    if (count == 5 && strcmp(words[1], "space") == 0) return make_space(words[2], words[3], words[4]);
    if (count == 4 && strcmp(words[1], "network") == 0) return make_network(words[2], words[3]);
    if (count >= 5 && strcmp(words[1], "mount") == 0) return mount_mapped(words[2], words[3], words[4], words + 5);
    usage();
}
