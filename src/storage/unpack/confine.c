/*
 * confine: what unpack can still do once it reads what strangers wrote. Its root is the tree; it has the capabilities to make
 * files of others, devices and attributes, and no other; and of the kernel's calls those that it needs. It opens nothing but directories
 * and files that it makes itself in the same moment, so a device that it has made is of no use to it; and no memory becomes code.
 *
 * Trap: whoever may not change its root is no root, and could not give files to others either: then nothing is unpacked.
 */
#define _GNU_SOURCE
#include "unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* zstd's largest window, and what the program has itself, many times over. */
enum { MEMORY_MOST = 512 * 1024 * 1024 };

#if defined(__SANITIZE_ADDRESS__)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

static void keep_capabilities(void)
{
    /* trusted.overlay.opaque is what the last one is for */
    const unsigned kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct had[2] = {{0}}, sets[2] = {{0}};
    if (syscall(SYS_capget, &header, had) != 0) failed("ask for", "capabilities");
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        sets[CAP_TO_INDEX(kept[i])].effective |= CAP_TO_MASK(kept[i]) & had[CAP_TO_INDEX(kept[i])].permitted;
    for (int i = 0; i < 2; i++) sets[i].permitted = sets[i].effective;
    if (syscall(SYS_capset, &header, sets) != 0) failed("give up", "capabilities");
}

#define YES BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define NO BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), YES
/* Of this call the argument, for so many steps; the others go on behind those. */
#define WHEN(name, argument, steps)                                                                                                       \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, steps + 1), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[argument]))

static void filter_calls(void)
{
    const uint32_t reading = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const uint32_t making = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    struct sock_filter calls[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(read), ALLOW(write), ALLOW(pread64), ALLOW(poll), ALLOW(close), ALLOW(mkdirat), ALLOW(mknodat), ALLOW(symlinkat),
        ALLOW(linkat), ALLOW(unlinkat), ALLOW(fchown), ALLOW(fchownat), ALLOW(fchmod), ALLOW(fchmodat), ALLOW(utimensat),
        ALLOW(fsetxattr), ALLOW(getdents64), ALLOW(fstat), ALLOW(newfstatat), ALLOW(syncfs), ALLOW(brk), ALLOW(munmap),
        ALLOW(mremap), ALLOW(madvise), ALLOW(exit_group), ALLOW(rt_sigreturn),
        /* these two are of fdopendir(3); with others signals go to whom one likes */
        WHEN(fcntl, 1, 4), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_GETFL, 1, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETFD, 0, 1), YES, NO,
        WHEN(mmap, 2, 3), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0), YES, NO,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, reading, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, making, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog program = {.len = sizeof calls / sizeof calls[0], .filter = calls};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) failed("set", "a filter of system calls");
}

void confine(int tree)
{
    const struct rlimit none = {0, 0}, memory = {MEMORY_MOST, MEMORY_MOST};
    if (fchdir(tree) != 0 || chroot(".") != 0) failed("make a root of", "the tree");
    if (setrlimit(RLIMIT_CORE, &none) != 0 || (!sanitized && setrlimit(RLIMIT_AS, &memory) != 0)) failed("set", "limits");
    keep_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) failed("give up", "privileges");
    umask(0);
    if (!sanitized) filter_calls();
}
