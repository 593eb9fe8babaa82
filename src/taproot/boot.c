/* See boot.h. From the top: small things, mounts, root, descriptors, network, modules, and the order of it all. */
#define _GNU_SOURCE
#include "boot.h"
#include "spawn.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MODULES_MS = 20000, ARGUMENTS = 64 };

/* argv[0] of a taproot that was started by boot_again(): the kernel calls it by its path. */
static char again_name[] = "taproot-again";

static bool file_write(const char *path, const char *text)
{
    const int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return false;
    const bool written = write(file, text, strlen(text)) >= 0;
    const int error = errno;
    close(file);
    errno = error;
    return written;
}

/* ---- mounts ---- */

static const struct file_system {
    const char *type, *target, *data;
    unsigned long flags;
    bool optional; /* a kernel without it is none the worse */
} file_systems[] = {
    {"proc", "/proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
    {"sysfs", "/sys", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
    {"devtmpfs", "/dev", "mode=0755", MS_NOSUID | MS_NOEXEC, false},
    {"devpts", "/dev/pts", "mode=0620,gid=5,ptmxmode=0666", MS_NOSUID | MS_NOEXEC, false},
    {"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, false},
    {"mqueue", "/dev/mqueue", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"hugetlbfs", "/dev/hugepages", "", MS_NOSUID | MS_NODEV, true},
    {"tmpfs", "/run", "mode=0755,size=25%", MS_NOSUID | MS_NODEV, false},
    {"tmpfs", "/tmp", "mode=1777,size=25%", MS_NOSUID | MS_NODEV, false},
    {"cgroup2", "/sys/fs/cgroup", "nsdelegate,memory_recursiveprot", MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
    {"securityfs", "/sys/kernel/security", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"efivarfs", "/sys/firmware/efi/efivars", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"pstore", "/sys/fs/pstore", "", MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"bpf", "/sys/fs/bpf", "mode=0700", MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
};

/* Something is mounted on it: by us before a crash, or before the modules were loaded. Another tmpfs would hide what is in it. */
static bool is_mount_point(const char *path)
{
    char above[64];
    struct stat here, there;
    snprintf(above, sizeof above, "%s/..", path);
    return stat(path, &here) == 0 && stat(above, &there) == 0 && here.st_dev != there.st_dev;
}

static void mount_one(const struct file_system *system)
{
    if (is_mount_point(system->target)) return;
    mkdir(system->target, 0755); /* in sysfs and on a read-only root it is there, or the mount says so */
    if (mount(system->type, system->target, system->type, system->flags, system->data) == 0 || errno == EBUSY) return;
    /* An older kernel may not know the options. */
    if (errno == EINVAL && mount(system->type, system->target, system->type, system->flags, "") == 0) return;
    if (!system->optional) say("cannot mount %s on %s: %s", system->type, system->target, strerror(errno));
}

static void mount_all(void)
{
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},
        {"/proc/self/fd/0", "/dev/stdin"},
        {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"},
    };
    for (size_t i = 0; i < sizeof file_systems / sizeof *file_systems; i++) mount_one(&file_systems[i]);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) != 0 && errno != EEXIST)
            say("cannot make %s: %s", links[i][1], strerror(errno));
}

/*
 * The initramfs is the kernel's rootfs, which is the root of all mounts and therefore cannot be pivoted away from: no
 * container could be made. Mounted once more over itself, it is a root like any other, and costs nothing.
 */
static void leave_rootfs(void)
{
    struct statfs root;
    const long ramfs = 0x858458f6, tmpfs = 0x01021994;
    if (statfs("/", &root) != 0 || ((long)root.f_type != ramfs && (long)root.f_type != tmpfs)) return;
    mkdir("/.root", 0700);
    if (mount("/", "/.root", NULL, MS_BIND, NULL) != 0 || chdir("/.root") != 0 ||
        mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
        say("cannot leave the initramfs' root: %s; containers may not start", strerror(errno));
    rmdir("/.root");
}

void boot_seal_root(void)
{
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) != 0)
        say("cannot make the root read-only: %s", strerror(errno));
}

/* ---- descriptors ---- */

static void open_console(void)
{
    const int console = open("/dev/console", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (console < 0) return; /* a machine without any: the kernel's log is what there is */
    for (int i = 0; i < 3; i++) dup2(console, i);
    if (console > 2) close(console);
}

/* ---- names and network ---- */

static void name_host(void)
{
    struct utsname names;
    if (uname(&names) == 0 && (strcmp(names.nodename, "(none)") == 0 || names.nodename[0] == '\0') &&
        sethostname("ironwood", 8) != 0)
        say("cannot set the host's name: %s", strerror(errno));
}

static void start_loopback(void)
{
    struct ifreq loopback;
    memset(&loopback, 0, sizeof loopback);
    memcpy(loopback.ifr_name, "lo", 3);
    const int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (any < 0 || ioctl(any, SIOCGIFFLAGS, &loopback) != 0) {
        say("there is no loopback: %s", strerror(errno));
    } else {
        loopback.ifr_flags = (short)(loopback.ifr_flags | IFF_UP);
        if (ioctl(any, SIOCSIFFLAGS, &loopback) != 0) say("cannot start loopback: %s", strerror(errno));
    }
    if (any >= 0) close(any);
}

/* ---- cgroups ---- */

void boot_brain_cgroup(const char *directory, uint64_t memory_most)
{
    static const char *const controllers[] = {"+cpu", "+cpuset", "+io", "+memory", "+pids", "+hugetlb"};
    char path[512], value[32];
    for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
        file_write("/sys/fs/cgroup/cgroup.subtree_control", controllers[i]); /* those that the kernel has */
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        say("cannot make the brain's cgroup %s: %s", directory, strerror(errno));
        return;
    }
    if (memory_most == 0) return;
    snprintf(value, sizeof value, "%llu", (unsigned long long)memory_most);
    snprintf(path, sizeof path, "%s/memory.max", directory);
    if (!file_write(path, value)) say("the brain's memory has no limit: %s", strerror(errno));
    snprintf(path, sizeof path, "%s/memory.oom.group", directory);
    file_write(path, "1");
}

void boot_brain_program(char **words)
{
    static char piece[65536];
    for (; words && *words; words++) {
        struct stat file;
        if (**words != '/' || stat(*words, &file) != 0 || !S_ISREG(file.st_mode)) continue;
        const int program = open(*words, O_RDONLY | O_CLOEXEC);
        while (program >= 0 && read(program, piece, sizeof piece) > 0) continue;
        if (program >= 0) close(program);
    }
}

/* ---- modules ---- */

/*
 * Loads what is listed, in that order, each with the parameters that stand behind it; a module that is there already, or whose
 * device is not, is no news.
 */
static _Noreturn void load_modules(const char *directory)
{
    static char list[65536];
    char path[512];
    snprintf(path, sizeof path, "%s/load", directory);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) _exit(0); /* a kernel that has all it needs */
    const ssize_t length = read(file, list, sizeof list - 1);
    list[length > 0 ? length : 0] = '\0';
    for (char *line = list, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) *end++ = '\0';
        if (!*line) continue;
        char *parameters = line + strcspn(line, " ");
        if (*parameters) *parameters++ = '\0';
        const int written = snprintf(path, sizeof path, "%s/%s", directory, line);
        const int module = written > 0 && (size_t)written < sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (module < 0 || (syscall(SYS_finit_module, module, parameters, 0) != 0 && errno != EEXIST && errno != ENODEV))
            say("cannot load %s: %s", line, strerror(errno));
        if (module >= 0) close(module);
    }
    _exit(0);
}

/* In a child, with a deadline: a module may wait for its hardware for as long as it likes. */
static void start_modules(const char *directory)
{
    const pid_t pid = spawn_fork(-1);
    if (pid == 0) load_modules(directory);
    if (pid < 0) {
        say("cannot load modules: %s", strerror(errno));
        return;
    }
    struct pollfd loaded = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN, .revents = 0};
    if (loaded.fd >= 0 && poll(&loaded, 1, MODULES_MS) == 0)
        say("modules are still loading after %d ms; going on without them", (int)MODULES_MS);
    if (loaded.fd >= 0) close(loaded.fd);
    waitpid(pid, NULL, loaded.fd >= 0 ? WNOHANG : 0);
}

static void start_own_modules(void)
{
    char directory[256];
    struct utsname names;
    if (uname(&names) != 0) return;
    snprintf(directory, sizeof directory, "/lib/modules/%s", names.release);
    start_modules(directory);
}

/* ---- power buttons ---- */

/* From the kernel's linux/input.h, which musl does not bring along. */
enum { EV_KEY = 1, KEY_POWER = 116, KEY_BYTES = 0x2ff / 8 + 1 };
#define EVIOCGBIT_KEYS ((2ul << 30) | ((unsigned long)KEY_BYTES << 16) | (0x45ul << 8) | (0x20ul + EV_KEY))
struct input_event {
    int64_t seconds, microseconds;
    uint16_t type, code;
    int32_t value;
};

enum { BUTTONS = 4, INPUT_DEVICES = 32 };
static int buttons[BUTTONS];
static size_t button_count;

void boot_watch_buttons(void)
{
    for (int number = 0; number < INPUT_DEVICES && button_count < BUTTONS; number++) {
        char path[32];
        uint8_t keys[KEY_BYTES] = {0};
        snprintf(path, sizeof path, "/dev/input/event%d", number);
        const int device = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (device < 0) continue;
        const bool has = syscall(SYS_ioctl, device, EVIOCGBIT_KEYS, keys) >= 0 &&
                         (keys[KEY_POWER / 8] & (1 << (KEY_POWER % 8))) != 0;
        if (has && loop_add(device, TOKEN_BUTTON, EPOLLIN)) buttons[button_count++] = device;
        else close(device);
    }
}

bool boot_button_pressed(void)
{
    bool pressed = false;
    for (size_t i = 0; i < button_count; i++) {
        struct input_event events[16];
        ssize_t length;
        while ((length = read(buttons[i], events, sizeof events)) > 0)
            for (size_t at = 0; at < (size_t)length / sizeof *events; at++)
                pressed = pressed || (events[at].type == EV_KEY && events[at].code == KEY_POWER && events[at].value == 1);
        if (length < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        loop_close(&buttons[i]); /* it was taken away */
        buttons[i--] = buttons[--button_count];
    }
    return pressed;
}

/* ---- the order ---- */

static void on_crash(int signal_number)
{
    char text[] = "taproot: it crashed (signal   ); starting it anew\n";
    text[28] = (char)('0' + signal_number / 10);
    text[29] = (char)('0' + signal_number % 10);
    if (write(2, text, sizeof text - 1) < 0) errno = 0;
    boot_again();
    for (;;) pause();
}

/* A bug of taproot must not be the end of the machine. */
static void survive_crashes(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    static char stack[16384] __attribute__((aligned(16)));
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack, .ss_flags = 0};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_crash;
    action.sa_flags = (int)(SA_ONSTACK | SA_NODEFER);
    sigemptyset(&action.sa_mask);
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) sigaction(crashes[i], &action, NULL);
}

void boot_again(void)
{
    static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char *arguments[] = {again_name, NULL};
    char *environment[] = {path, NULL};
    const struct timespec pause = {.tv_sec = 1, .tv_nsec = 0}; /* what crashes at once again shall not be hot */
    nanosleep(&pause, NULL);
    execve("/proc/self/exe", arguments, environment);
}

bool boot_early(char **arguments)
{
    struct stat self;
    const bool again = arguments[0] && strcmp(arguments[0], again_name) == 0;
    if (getpid() != 1) return false;
    const bool bare = stat("/proc/self", &self) != 0;
    if (bare) mount_one(&file_systems[0]);
    if (!system_is_machine()) return false;
    survive_crashes();
    if (!again) {
        if (bare) umount2("/proc", MNT_DETACH);
        leave_rootfs();
    }
    mount_all();
    open_console();
    clearenv();
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    log_to_kernel();
    if (again) return true;
    name_host();
    start_loopback();
    start_modules(BOOT_IMAGES); /* what it takes to mount the files of the system, where the others are */
    boot_system();
    start_own_modules();
    mount_all(); /* the kernel of a distribution has some file systems as modules */
    return true;
}

char **boot_usual_arguments(int *count)
{
    static char words[][40] = {"--", "/usr/bin/node", "/usr/lib/ironwood/brain.cjs", "--host"};
    static char *arguments[] = {again_name, words[0], words[1], words[2], words[3], NULL};
    *count = sizeof arguments / sizeof *arguments - 1;
    return arguments;
}

char **boot_arguments(int *count)
{
    static char text[4096];
    static char *arguments[ARGUMENTS + 1];
    arguments[0] = again_name;
    *count = 1;
    const int file = open(BOOT_ARGUMENTS, O_RDONLY | O_CLOEXEC);
    const ssize_t length = file >= 0 ? read(file, text, sizeof text - 1) : -1;
    if (length < 0) say("cannot read %s: %s; using what is usual", BOOT_ARGUMENTS, strerror(errno));
    if (file >= 0) close(file);
    text[length > 0 ? length : 0] = '\0';
    for (char *line = text, *end; *line && *count < ARGUMENTS; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) *end++ = '\0';
        if (*line && *line != '#') arguments[(*count)++] = line;
    }
    arguments[*count] = NULL;
    return *count > 1 ? arguments : boot_usual_arguments(count);
}
