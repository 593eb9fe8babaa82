/*
 * confined TREE CALL: shuts itself into TREE as `unpack` does, and then makes one call that nobody who has taken `unpack` over may
 * make, or (`allowed`) those with a condition that `unpack` itself needs. It comes back from what is not stopped, and says so.
 */
#define _GNU_SOURCE
#include "unpack.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void failed(const char *operation, const char *path)
{
    fprintf(stderr, "%s %s\n", operation, path);
    exit(1);
}

static void make(const char *call)
{
    if (strcmp(call, "allowed") == 0) {
        const int directory = openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fdopendir(directory) &&
            mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
            exit(0);
    }
    if (strcmp(call, "open") == 0) openat(AT_FDCWD, "device", O_RDWR);
    if (strcmp(call, "follow") == 0) openat(AT_FDCWD, "link", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (strcmp(call, "owner of a signal") == 0) fcntl(STDIN_FILENO, F_SETOWN, 1);
    if (strcmp(call, "signal") == 0) fcntl(STDIN_FILENO, F_SETSIG, SIGKILL);
    if (strcmp(call, "flags") == 0) fcntl(STDIN_FILENO, F_SETFL, O_ASYNC);
    if (strcmp(call, "code") == 0) mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (strcmp(call, "protect") == 0) mprotect(NULL, 4096, PROT_READ | PROT_EXEC);
    if (strcmp(call, "socket") == 0) socket(AF_UNIX, SOCK_STREAM, 0);
    if (strcmp(call, "execute") == 0) execl("/program", "program", (char *)NULL);
    if (strcmp(call, "root") == 0) syscall(SYS_chroot, "/");
    if (strcmp(call, "mount") == 0) syscall(SYS_mount, "", "/", "", 0, NULL);
    if (strcmp(call, "kill") == 0) kill(1, 0);
    /* the numbers of x32 are those of others with this bit */
    if (strcmp(call, "x32") == 0) syscall(0x40000000 | SYS_write, STDOUT_FILENO, "", 0);
    /* and those of 32 bits have an entry of their own: getpid */
    if (strcmp(call, "32 bits") == 0) {
        long number = 20;
        __asm__ volatile("int $0x80" : "+a"(number) : : "memory", "r8", "r9", "r10", "r11");
    }
}

int main(int count, char **words)
{
    if (count != 3) return 64;
    /* the first memory of all needs random numbers, and `unpack` has had its own by then */
    char *path = strdup(words[1]);
    const int tree = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    confine(tree);
    make(words[2]);
    return 2;
}
