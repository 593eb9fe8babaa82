/**
 * Which system calls a container may make: the seccomp part of `config.json` (OCI runtime specification, "Seccomp").
 *
 * What is allowed is listed: whatever a program of today needs that was given no power over the host. What is not:
 * - what only somebody with a capability may do that the container lacks (mounting, clocks, modules, tracing the kernel):
 *   the kernel would refuse it anyhow, but its code is not even reached. It answers "not permitted", as a kernel does;
 * - user namespaces (`unshare`, `clone` with namespace flags): in them everybody is root, and most of the holes that let
 *   containers out were found there;
 * - io_uring, keyrings, userfaultfd, bpf, perf: large parts of the kernel that were holes more than once;
 * - sockets of AF_VSOCK and AF_ALG: the way to a hypervisor, and into the kernel's ciphers. `socketcall`, by which a call of
 *   32 bits would get them past a filter that cannot follow its pointer, is refused: every C library of the last ten years has
 *   `socket` itself.
 *
 * A call that is not in any list (newer than it) answers "not implemented", as from an older kernel, so that a C library
 * falls back to what it did before there was such a call. So does `clone3`, whose flags no filter can read.
 *
 * Use {@link profile} with the capabilities of the container: each opens the calls that are of use with it alone.
 *
 * Traps: a filter compares an argument once in a rule; to except two values takes ranges. Names that a library does not
 * know are dropped by it, so a new name does no harm on an old host. Without `SCMP_ARCH_X86` programs of 32 bits are killed.
 */

/** One rule: names that are dealt with alike, each argument compared as said. */
interface Rule {
  readonly names: ReadonlyArray<string>
  readonly action: "SCMP_ACT_ALLOW" | "SCMP_ACT_ERRNO"
  readonly errnoRet?: number
  readonly args?: ReadonlyArray<{
    readonly index: number
    readonly value: number
    readonly valueTwo?: number
    readonly op: "SCMP_CMP_EQ" | "SCMP_CMP_LT" | "SCMP_CMP_GT" | "SCMP_CMP_MASKED_EQ"
  }>
}

/** `linux.seccomp` of the OCI runtime specification, as far as it is used here. */
export interface Seccomp {
  readonly defaultAction: "SCMP_ACT_ERRNO"
  readonly defaultErrnoRet: number
  readonly architectures: ReadonlyArray<string>
  readonly syscalls: ReadonlyArray<Rule>
}

const EPERM = 1
const ENOSYS = 38

const words = (text: string): ReadonlyArray<string> => text.trim().split(/\s+/u)

/** Files and directories, and what is known of them. */
const files = words(`
  access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
  fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
  flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat
  getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl
  fanotify_mark lchown lchown32 lgetxattr link linkat listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek
  lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv
  preadv2 pwrite64 pwritev pwritev2 read readahead readdir readlink readlinkat readv removexattr removexattrat rename
  renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statmount statx
  symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat
  utimensat_time64 utimes vmsplice write writev pipe pipe2 memfd_create memfd_secret
`)

/** Memory. */
const memory = words(`
  brk cachestat get_mempolicy madvise map_shadow_stack mbind membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect
  mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease
  remap_file_pages set_mempolicy set_mempolicy_home_node shmat shmctl shmdt shmget
`)

/** Processes and threads, their rights, limits and signals. */
const processes = words(`
  alarm capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv
  futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
  getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit
  getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
  landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq rt_sigaction rt_sigpending
  rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
  sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
  sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
  sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
  setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
  setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sigaction sigaltstack signal signalfd signalfd4
  sigpending sigprocmask sigreturn sigsuspend tgkill tkill ugetrlimit vfork wait4 waitid waitpid arch_prctl modify_ldt
  ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp
`)

/** Sockets, queues and waiting. `socket` itself has rules of its own. */
const communication = words(`
  accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
  epoll_wait_old eventfd eventfd2 getpeername getsockname getsockopt io_cancel io_destroy io_getevents io_pgetevents
  io_pgetevents_time64 io_setup io_submit ipc listen mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
  mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd _newselect poll ppoll ppoll_time64 pselect6
  pselect6_time64 recv recvfrom recvmmsg recvmmsg_time64 recvmsg select semctl semget semop semtimedop semtimedop_time64
  send sendmmsg sendmsg sendto setsockopt shutdown socketpair
`)

/** Time, chance, and what the system says of itself. */
const rest = words(`
  adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
  clock_nanosleep_time64 getrandom gettimeofday nanosleep sysinfo time timer_create timer_delete timer_getoverrun
  timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
  timerfd_settime timerfd_settime64 times uname
`)

/** What a capability is of use for, and nothing but it. */
const byCapability: Readonly<Record<string, ReadonlyArray<string>>> = {
  CAP_BPF: words("bpf"),
  CAP_CHECKPOINT_RESTORE: words("kcmp"),
  CAP_DAC_READ_SEARCH: words("open_by_handle_at"),
  CAP_PERFMON: words("perf_event_open"),
  CAP_SYS_ADMIN: words(`
    bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree perf_event_open
    pivot_root quotactl quotactl_fd setdomainname sethostname setns swapoff swapon syslog umount umount2 unshare
  `),
  CAP_SYS_BOOT: words("reboot"),
  CAP_SYS_CHROOT: words("chroot"),
  CAP_SYS_MODULE: words("delete_module finit_module init_module"),
  CAP_SYS_NICE: words("migrate_pages move_pages"),
  CAP_SYS_PACCT: words("acct"),
  CAP_SYS_RAWIO: words("ioperm iopl"),
  CAP_SYS_TIME: words("clock_settime clock_settime64 settimeofday stime"),
  CAP_SYS_TTY_CONFIG: words("vhangup"),
  CAP_SYSLOG: words("syslog")
}

/** Refused to everybody who has no filter of his own choice; known, so "not permitted" and not "not implemented". */
const never = words(`
  add_key io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load keyctl nfsservctl request_key
  swapcontext sysfs _sysctl uselib userfaultfd ustat vm86 vm86old
`)

/** Personalities of old programs that do no harm: Linux, BSD-like, and the 32-bit and no-randomisation flags of these. */
const personalities = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff]

/** All flags of `clone` that make a namespace: CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET. */
const CLONE_NEW = 0x7e020000

const AF_ALG = 38
const AF_VSOCK = 40

const allow = (names: ReadonlyArray<string>, ...args: NonNullable<Rule["args"]>): Rule => ({
  names,
  action: "SCMP_ACT_ALLOW",
  ...(args.length === 0 ? {} : { args })
})

const refuse = (names: ReadonlyArray<string>, errnoRet: number): Rule => ({ names, action: "SCMP_ACT_ERRNO", errnoRet })

const make = (capabilities: ReadonlyArray<string>): Seccomp => {
  const opened = new Set(capabilities.flatMap((capability) => byCapability[capability] ?? []))
  const closed = [...new Set(Object.values(byCapability).flat())].filter((name) => !opened.has(name))
  const namespaces = capabilities.includes("CAP_SYS_ADMIN")
  const listed = new Set([...files, ...memory, ...processes, ...communication, ...rest, ...opened])
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: ENOSYS,
    architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    syscalls: [
      allow([...listed, ...(namespaces ? ["clone", "clone3"] : [])]),
      ...(namespaces ? [] : [allow(["clone"], { index: 0, value: CLONE_NEW, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" })]),
      ...personalities.map((value) => allow(["personality"], { index: 0, value, op: "SCMP_CMP_EQ" })),
      allow(["socket"], { index: 0, value: AF_ALG, op: "SCMP_CMP_LT" }),
      allow(["socket"], { index: 0, value: AF_ALG + 1, op: "SCMP_CMP_EQ" }),
      allow(["socket"], { index: 0, value: AF_VSOCK, op: "SCMP_CMP_GT" }),
      // what is said of socket(2) libseccomp takes to hold for this one, too, but for its arguments: they are in memory
      refuse(["socketcall"], EPERM),
      refuse([...never, ...closed.filter((name) => !listed.has(name))], EPERM)
    ]
  }
}

/** Nobody has more kinds of containers; if so their profiles are made again. */
const CAPACITY = 64
const made = new Map<string, Seccomp>()

/** The profile of a container with these capabilities (`CAP_SYS_CHROOT`); the same one for the same capabilities. */
export const profile = (capabilities: ReadonlyArray<string>): Seccomp => {
  const key = capabilities.join()
  const known = made.get(key)
  if (known !== undefined) return known
  const profile = make(capabilities)
  if (made.size < CAPACITY) made.set(key, profile)
  return profile
}
