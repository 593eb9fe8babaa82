/*
 * init PROGRAM [ARGUMENT...]: the first process of a container that wants one (`init` in its spec). It runs the program, hands on
 * every signal, reaps whoever is left to it, and ends as the program does: with its code, or 128 and the number of the signal.
 *
 * init alone: the first process of a pid namespace that others share. It reaps, until it is killed.
 *
 * A program that is a container's first process must do all of that itself: without a handler the kernel keeps signals from it,
 * and orphans become zombies. This does it for those that do not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};

static _Noreturn void become(char **words, const sigset_t *mask)
{
    /* a group of its own, in front of the terminal if there is one: its keys are for the program */
    setpgid(0, 0);
    if (isatty(STDIN_FILENO)) {
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(STDIN_FILENO, getpid());
        signal(SIGTTOU, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(words[0], words);
    fprintf(stderr, "init: %s: %s\n", words[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

/* Signals from within do nothing to it: it handles none, and it is the first of its namespace. */
static _Noreturn void keep(void)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
        sigwaitinfo(&child, NULL);
    }
}

int main(int count, char **words)
{
    if (count < 2) keep();
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) sigdelset(&all, crashes[i]);
    sigprocmask(SIG_SETMASK, &all, &before);
    const pid_t program = fork();
    if (program < 0) {
        fprintf(stderr, "init: %s\n", strerror(errno));
        return 126;
    }
    if (program == 0) become(words + 1, &before);
    for (;;) {
        siginfo_t info;
        const int number = sigwaitinfo(&all, &info);
        if (number > 0 && number != SIGCHLD) kill(program, number);
        for (int status = 0;;) {
            const pid_t ended = waitpid(-1, &status, WNOHANG);
            if (ended <= 0) break;
            if (ended == program) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
    }
}
