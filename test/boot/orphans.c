/*
 * orphans COUNT PROGRAM [ARGUMENT...]: becomes PROGRAM after it has made COUNT processes that have lost their parents, which
 * all end at the moment when it does. One more process waits until the last of them is reaped, and says how long that took:
 *
 *   orphans: 10000 ended at once; none left after 123.4 ms
 *
 * orphans --reap COUNT PROGRAM [ARGUMENT...]: does the same below a parent that reaps them and does nothing else: the floor.
 *
 * For the tests of a booted machine and bench/boot.ts. What it says goes to standard error, as an error of the kernel's log.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PARENTS = 10 };

static double milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void fail(const char *what)
{
    perror(what);
    exit(70);
}

static void wait_for_end(int descriptor)
{
    char byte;
    while (read(descriptor, &byte, 1) < 0 && errno == EINTR);
}

static pid_t parent(const int pipe_ends[2], pid_t group, int children)
{
    const pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid > 0) return pid;
    if (setpgid(0, group) != 0) fail("setpgid");
    for (int i = 0; i < children; i++) {
        const pid_t child = fork();
        if (child < 0) fail("fork");
        if (child > 0) continue;
        close(pipe_ends[1]);
        wait_for_end(pipe_ends[0]);
        _exit(i % 128);
    }
    _exit(0);
}

static void watch(const int pipe_ends[2], pid_t group, int count)
{
    if (fork() != 0) return;
    if (fork() != 0) _exit(0);
    close(pipe_ends[1]);
    wait_for_end(pipe_ends[0]);
    const double began = milliseconds();
    while (kill(-group, 0) == 0 || errno != ESRCH) usleep(500); /* a group has its dead until they are reaped */
    char text[128];
    const int length = snprintf(text, sizeof text, "<3>orphans: %d ended at once; none left after %.1f ms\n", count, milliseconds() - began);
    if (write(2, text, (size_t)length) < 0) _exit(1);
    _exit(0);
}

/* The parent of all that has none. */
static int reap(void)
{
    int status;
    while (wait(&status) > 0 || errno == EINTR);
    return 0;
}

int main(int arguments, char **words)
{
    if (arguments > 1 && strcmp(words[1], "--reap") == 0) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (fork() != 0) return reap();
        words++;
        arguments--;
    }
    if (arguments < 3) return 64;
    const int count = atoi(words[1]);
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) fail("pipe");
    pid_t parents[PARENTS];
    for (int i = 0; i < PARENTS; i++) {
        parents[i] = parent(pipe_ends, i == 0 ? 0 : parents[0], count / PARENTS);
        if (i == 0) setpgid(parents[0], parents[0]);
    }
    watch(pipe_ends, parents[0], count);
    int status;
    while (wait(&status) > 0)
        if (status != 0) return 70;
    close(pipe_ends[0]);
    fcntl(pipe_ends[1], F_SETFD, FD_CLOEXEC);
    execv(words[2], words + 2);
    fail(words[2]);
}
