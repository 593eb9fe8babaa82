/* Makes system calls that a container may not make, and some that it may; prints a line for each: its name and what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TELL(name, ...) \
  do { \
    errno = 0; \
    long result = syscall(__VA_ARGS__); \
    printf("%s %s\n", name, result >= 0 ? "ok" : strerror(errno)); \
  } while (0)

/* The same call by the kernel's door for programs of 32 bits; a child tries, as a kernel without that door kills who knocks. */
static void tell_32(const char *name, long number, long first, long second, long third) {
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    long result = number;
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(first), "c"(second), "d"(third) : "memory", "r8", "r9", "r10", "r11");
    printf("%s %s\n", name, (int)result >= 0 ? "ok" : strerror(-(int)result));
    fflush(stdout);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) printf("%s no calls of 32 bits\n", name);
}

int main(void) {
  static char arguments[256];
  TELL("getpid", SYS_getpid);
  TELL("personality", SYS_personality, 0xffffffff);
  TELL("socket-inet", SYS_socket, 2, 2, 0);
  TELL("socket-unix", SYS_socket, 1, 1, 0);
  TELL("socket-netlink", SYS_socket, 16, 3, 0);
  TELL("socket-alg", SYS_socket, 38, 5, 0);
  TELL("socket-vsock", SYS_socket, 40, 1, 0);
  TELL("unshare-user", SYS_unshare, 0x10000000);
  TELL("clone-user", SYS_clone, 0x10000000 | 17, 0, 0, 0, 0);
  TELL("clone3", SYS_clone3, arguments, 88);
  TELL("mount", SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
  TELL("keyctl", SYS_keyctl, 0, 0, 0);
  TELL("bpf", SYS_bpf, 0, arguments, sizeof arguments);
  TELL("perf", SYS_perf_event_open, arguments, 0, -1, -1, 0);
  TELL("userfaultfd", SYS_userfaultfd, 0);
  TELL("io_uring", SYS_io_uring_setup, 1, arguments);
  TELL("unknown", 5000);
  /* its arguments lie where 32 bits reach */
  static const unsigned alg[] = {38, 5, 0};
  tell_32("socket-inet-32", 359, 2, 2, 0);
  tell_32("socket-alg-32", 359, 38, 5, 0);
  tell_32("socketcall-alg-32", 102, 1, (long)alg, 0);
  tell_32("unshare-user-32", 310, 0x10000000, 0, 0);
  return 0;
}
