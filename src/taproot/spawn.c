/* See spawn.h. The order of the stages in `become` is the order in which rights are given up. */
#define _GNU_SOURCE
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

/* From the kernel's headers, which musl does not bring along. */
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif
#define CGROUP2_MAGIC 0x63677270
struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static struct rlimit first_descriptors; /* what taproot was started with */

void spawn_prepare(void)
{
    if (getrlimit(RLIMIT_NOFILE, &first_descriptors) != 0) return;
    struct rlimit raised = first_descriptors;
    raised.rlim_cur = raised.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &raised) != 0) say("cannot raise the limit of descriptors: %s", strerror(errno));
}

pid_t spawn_fork(int cgroup)
{
    struct clone_arguments arguments = {.exit_signal = SIGCHLD};
    if (cgroup >= 0) {
        arguments.flags = CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup;
    }
    pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0 && errno == ENOSYS && cgroup < 0) /* some containers forbid it */
        pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) log_forget();
    return pid;
}

void spawn_restore_defaults(void)
{
    sigset_t none;
    for (int signal_number = 1; signal_number <= 64; signal_number++) signal(signal_number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setrlimit(RLIMIT_NOFILE, &first_descriptors);
    const int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0) {
        if (write(score, "0", 1) < 0) errno = 0; /* lacks the right where taproot itself was given a low score */
        close(score);
    }
}

void spawn_execute(char **arguments, char **environment)
{
    static char path[PATH_MAX];
    const char *name = arguments[0];
    if (strchr(name, '/')) {
        execve(name, arguments, environment);
        return;
    }
    const char *search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (char **variable = environment; *variable; variable++)
        if (strncmp(*variable, "PATH=", 5) == 0) search = *variable + 5;
    int error = ENOENT;
    for (;;) {
        const size_t length = strcspn(search, ":");
        const int written = snprintf(path, sizeof path, "%.*s%s%s", (int)length, search, length ? "/" : "", name);
        if (*name && written > 0 && (size_t)written < sizeof path) {
            execve(path, arguments, environment);
            if (errno == EACCES) error = EACCES; /* the answer when no later one is better */
            else if (errno != ENOENT && errno != ENOTDIR) return;
        }
        if (search[length] == '\0') break;
        search += length + 1;
    }
    errno = error;
}

/* ---- in the child ---- */

enum { FAILURE_PIPE = 3 };

static _Noreturn void fail(enum stage stage)
{
    const struct spawn_failure failure = {.stage = (int32_t)stage, .error = errno};
    if (write(FAILURE_PIPE, &failure, sizeof failure) < 0) _exit(126);
    _exit(127);
}

static void join_cgroup(const char *directory)
{
    char path[PATH_MAX];
    const int written = snprintf(path, sizeof path, "%s/cgroup.procs", directory);
    errno = ENAMETOOLONG;
    if (written < 0 || (size_t)written >= sizeof path) fail(STAGE_CGROUP);
    const int procs = open(path, O_WRONLY | O_CLOEXEC);
    if (procs < 0 || write(procs, "0", 1) != 1) fail(STAGE_CGROUP);
    close(procs);
}

static void open_as(int number, const char *path, int flags, mode_t mode)
{
    const int file = open(path, flags | O_CLOEXEC | O_NOCTTY, mode);
    if (file < 0 || dup2(file, number) < 0) fail(STAGE_STDIO);
    close(file);
}

/* Becomes the process. `ends` are its ends of pipes and terminal, -1 where there is none; `joined` is done already. */
static _Noreturn void become(const struct spawn_request *request, const int ends[3], int failures, uint32_t joined)
{
    /*
     * Pipes first, then nothing of taproot's stays open while the rest may wait for a file system. (Where close_range
     * is forbidden it stays until exec, as all of it is close-on-exec.)
     */
    bool placed = true;
    for (int i = 0; i < 3; i++) placed = (ends[i] < 0 || dup2(ends[i], i) == i) && placed;
    if (failures != FAILURE_PIPE && dup3(failures, FAILURE_PIPE, O_CLOEXEC) < 0) _exit(126);
    if (!placed) fail(STAGE_STDIO);
    syscall(SYS_close_range, FAILURE_PIPE + 1, ~0u, 0);
    spawn_restore_defaults();

    if (request->session ? setsid() < 0 : setpgid(0, 0) != 0) fail(STAGE_SESSION);
    if (request->session && request->stdio[0].kind == STDIO_TERMINAL && ioctl(0, TIOCSCTTY, 0) != 0)
        fail(STAGE_SESSION);

    for (uint32_t i = 0; i < request->cgroup_count; i++)
        if (i + 1 != joined) join_cgroup(request->cgroups[i]);

    for (int i = 0; i < 3; i++) {
        const int kind = request->stdio[i].kind;
        if (kind == STDIO_NULL || kind == STDIO_CONSOLE) open_as(i, "/dev/null", O_RDWR, 0);
        if (kind == STDIO_FILE)
            open_as(i, request->stdio[i].path, (int)request->stdio[i].flags, (mode_t)request->stdio[i].mode);
        if (kind == STDIO_STDOUT && dup2(1, 2) < 0) fail(STAGE_STDIO);
    }

    for (uint32_t i = 0; i < request->rlimit_count; i++)
        if (syscall(SYS_prlimit64, 0, request->rlimit_resources[i], &request->rlimits[i], NULL) != 0)
            fail(STAGE_RLIMIT);

    if (request->has_identity) {
        if (syscall(SYS_setgroups, request->group_count, request->groups) != 0) fail(STAGE_IDENTITY);
        if (syscall(SYS_setresgid, request->gid, request->gid, request->gid) != 0) fail(STAGE_IDENTITY);
        if (syscall(SYS_setresuid, request->uid, request->uid, request->uid) != 0) fail(STAGE_IDENTITY);
    }
    if (chdir(*request->directory ? request->directory : "/") != 0) fail(STAGE_DIRECTORY);
    spawn_execute(request->arguments, request->environment);
    fail(STAGE_EXEC);
}

/* ---- in taproot ---- */

/* The first directory of the list that is on cgroup2: opened, with its place in the list (from 1) in `which`. */
static int open_cgroup2(const struct spawn_request *request, uint32_t *which)
{
    for (uint32_t i = 0; i < request->cgroup_count; i++) {
        struct statfs system;
        const int directory = open(request->cgroups[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0) continue; /* the child will say why */
        if (fstatfs(directory, &system) == 0 && system.f_type == CGROUP2_MAGIC) {
            *which = i + 1;
            return directory;
        }
        close(directory);
    }
    return -1;
}

static bool open_terminal(const struct spawn_request *request, int ours[3], int ends[3])
{
    const struct winsize size = {.ws_row = request->rows, .ws_col = request->columns, .ws_xpixel = 0, .ws_ypixel = 0};
    int unlock = 0;
    ours[1] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (ours[1] < 0 || ioctl(ours[1], TIOCSPTLCK, &unlock) != 0) return false;
    ends[0] = ioctl(ours[1], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ends[0] < 0 || ioctl(ends[0], TIOCSWINSZ, &size) != 0) return false;
    ends[1] = fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
    ends[2] = fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
    ours[0] = fcntl(ours[1], F_DUPFD_CLOEXEC, 3);
    return ends[1] >= 0 && ends[2] >= 0 && ours[0] >= 0;
}

/* Only our end is non-blocking: the process gets an ordinary pipe. */
static bool open_pipe(int *ours, int *theirs, bool to_child)
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) != 0) return false;
    *ours = pair[to_child ? 1 : 0];
    *theirs = pair[to_child ? 0 : 1];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

/*
 * For output: as long as two OUTPUTs, where the kernel allows it. What the brain has in hand stays in the pipe until it is confirmed,
 * and the process can write on meanwhile instead of waiting for each turn of the brain.
 */
static void widen_pipe(int end)
{
    if (end >= 0) (void)fcntl(end, F_SETPIPE_SZ, 2 * OUTPUT_LONGEST);
}

static void close_all(int *descriptors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (descriptors[i] >= 0) close(descriptors[i]);
        descriptors[i] = -1;
    }
}

int spawn_child(const struct spawn_request *request, struct spawned *made)
{
    int ours[3] = {-1, -1, -1};
    int ends[3] = {-1, -1, -1};
    int status[2] = {-1, -1};
    int cgroup[1] = {-1};
    uint32_t joined = 0;
    pid_t pid = -1;

    bool ready = open_pipe(&status[0], &status[1], false);
    if (request->stdio[0].kind == STDIO_TERMINAL) ready = ready && open_terminal(request, ours, ends);
    for (int i = 0; i < 3; i++) {
        if (request->stdio[i].kind != STDIO_STREAM) continue;
        ready = ready && open_pipe(&ours[i], &ends[i], i == 0);
        if (i > 0) widen_pipe(ours[i]);
    }
    if (ready) {
        cgroup[0] = open_cgroup2(request, &joined);
        pid = spawn_fork(cgroup[0]);
        if (pid < 0 && cgroup[0] >= 0) { /* an old kernel, or a cgroup that takes nobody: let the child find out */
            joined = 0;
            pid = spawn_fork(-1);
        }
        if (pid == 0) become(request, ends, status[1], joined);
    }
    const int error = pid < 0 ? errno : 0;
    close_all(ends, 3);
    close_all(&status[1], 1);
    close_all(cgroup, 1);
    if (error != 0) {
        close_all(ours, 3);
        close_all(&status[0], 1);
        return error;
    }
    *made = (struct spawned){.pid = pid, .status = status[0], .input = ours[0], .output = {ours[1], ours[2]}};
    return 0;
}
