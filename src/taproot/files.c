/*
 * files: reads and writes files, and looks at and kills processes, for a brain that is on another machine: the hands of the brain
 * in a guest, beside taproot, which neither blocks nor touches files. Requests come in at standard input, one at a time, and each
 * is answered at standard output; it ends with its input.
 *
 * A request is u32 length (of what follows), u8 operation, and its fields: a text is u32 length and bytes. An answer is u32
 * length, u32 errno, and bytes. All little-endian.
 *
 *   1 READ       text path, u32 most      the content; EFBIG when it is longer than `most`
 *   2 READ_IN    text root, text path, u32 most
 *                                         the same of a regular file as who lives in `root` sees it: no way leads out
 *   3 WRITE      text path, u32 mode, text content
 *                                         in place of what was there
 *   4 LIST       text path                each entry: 'd' (a directory) or '-', its name, NUL
 *   5 REMOVE     text path                with all below it; none is fine. Goes into no other file system
 *   6 RMDIR      text path
 *   7 MKDIR      text path, u32 mode      with those above it; one that is there is fine
 *   8 KILL       u32 pid, u32 signal
 *   9 PROCESSES                           each: u32 pid, then three texts: its stat, its status, its cmdline (of /proc);
 *                                         as many as there is room for
 *  10 LIKE       text path, text model    gives a directory the owner, group and mode of another
 *  11 OWN        text path, u32 uid, u32 gid, u32 mode
 *
 * A request that it does not understand is the end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 1 << 20, PATH_MOST = 4096, DEEPEST = 64, COMMAND_MOST = 1024 };
enum operation { READ = 1, READ_IN, WRITE, LIST, REMOVE, RMDIR, MKDIR, KILL, PROCESSES, LIKE, OWN };

static uint8_t request[MOST];
static size_t request_at, request_end;
static uint8_t answer[MOST];
static size_t answer_length;

/* ---- requests and answers ---- */

static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "files: %s\n", why);
    exit(1);
}

static void read_all(uint8_t *bytes, size_t length)
{
    for (size_t got = 0; got < length;) {
        const ssize_t piece = read(STDIN_FILENO, bytes + got, length - got);
        if (piece < 0 && errno == EINTR) continue;
        if (piece <= 0) exit(0);
        got += (size_t)piece;
    }
}

static void write_all(int file, const uint8_t *bytes, size_t length)
{
    for (size_t put = 0; put < length;) {
        const ssize_t piece = write(file, bytes + put, length - put);
        if (piece < 0 && errno == EINTR) continue;
        if (piece <= 0) exit(1);
        put += (size_t)piece;
    }
}

static uint32_t number_at(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void number_to(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t take_number(void)
{
    if (request_end - request_at < 4) give_up("a request is too short");
    const uint32_t value = number_at(request + request_at);
    request_at += 4;
    return value;
}

static const uint8_t *take_bytes(uint32_t *length)
{
    *length = take_number();
    if (request_end - request_at < *length) give_up("a request is too short");
    const uint8_t *bytes = request + request_at;
    request_at += *length;
    return bytes;
}

static void take_path(char path[PATH_MOST])
{
    uint32_t length;
    const uint8_t *bytes = take_bytes(&length);
    if (length == 0 || length >= PATH_MOST || memchr(bytes, 0, length)) give_up("that is no path");
    memcpy(path, bytes, length);
    path[length] = '\0';
}

static bool put(const void *bytes, size_t length)
{
    if (MOST - answer_length < length) return false;
    memcpy(answer + answer_length, bytes, length);
    answer_length += length;
    return true;
}

/* ---- files ---- */

/* All of a file into the answer; an errno. */
static int read_file(int file, uint32_t most)
{
    size_t got = 0;
    for (;;) {
        const size_t room = MOST - answer_length;
        if (room == 0) return EFBIG;
        const ssize_t piece = read(file, answer + answer_length, room);
        if (piece < 0 && errno == EINTR) continue;
        if (piece < 0) return errno;
        if (piece == 0) return got > most ? EFBIG : 0;
        got += (size_t)piece;
        answer_length += (size_t)piece;
        if (got > most) return EFBIG;
    }
}

static int read_path(const char *path, uint32_t most)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return errno;
    const int error = read_file(file, most);
    close(file);
    return error;
}

/* From the kernel's linux/openat2.h, which musl does not bring along. */
enum { RESOLVE_NO_MAGICLINKS = 2, RESOLVE_IN_ROOT = 16 };
struct how {
    uint64_t flags, mode, resolve;
};

static int read_in(const char *root, const char *path, uint32_t most)
{
    const struct how how = {.flags = O_PATH | O_CLOEXEC, .mode = 0, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    struct stat found;
    char again[64];
    const int directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return errno;
    const int file = (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
    int error = file < 0 ? errno : 0;
    close(directory);
    if (error != 0) return error;
    /* what it is before it is opened: a device does something when it is */
    if (fstat(file, &found) != 0 || !S_ISREG(found.st_mode)) {
        error = EINVAL;
    } else {
        snprintf(again, sizeof again, "/proc/self/fd/%d", file);
        error = read_path(again, most);
    }
    close(file);
    return error;
}

static int write_path(const char *path, mode_t mode, const uint8_t *bytes, size_t length)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, mode);
    if (file < 0) return errno;
    int error = 0;
    for (size_t done = 0; done < length && error == 0;) {
        const ssize_t piece = write(file, bytes + done, length - done);
        if (piece < 0 && errno != EINTR) error = errno;
        if (piece > 0) done += (size_t)piece;
    }
    if (close(file) != 0 && error == 0) error = errno;
    return error;
}

static int list(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory) return errno;
    int error = 0;
    for (const struct dirent *entry; error == 0 && (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (!put(entry->d_type == DT_DIR ? "d" : "-", 1) || !put(entry->d_name, strlen(entry->d_name) + 1)) error = EFBIG;
    }
    closedir(directory);
    return error;
}

/* What is in a directory; `of`: the device whose files may go. */
static int empty(int directory, dev_t of, int depth)
{
    const int copy = depth > DEEPEST ? -1 : openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (!entries) {
        if (copy >= 0) close(copy);
        return depth > DEEPEST ? ELOOP : errno;
    }
    int error = 0;
    for (const struct dirent *entry; (entry = readdir(entries));) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (unlinkat(directory, name, 0) == 0 || errno == ENOENT) continue;
        struct stat found;
        const int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below < 0) {
            error = errno;
            continue;
        }
        if (fstat(below, &found) != 0 || found.st_dev != of) error = EXDEV;
        else if ((error = empty(below, of, depth + 1)) == 0 && unlinkat(directory, name, AT_REMOVEDIR) != 0) error = errno;
        close(below);
    }
    closedir(entries);
    return error;
}

static int remove_path(const char *path)
{
    struct stat found;
    if (lstat(path, &found) != 0) return errno == ENOENT ? 0 : errno;
    if (!S_ISDIR(found.st_mode)) return unlink(path) == 0 || errno == ENOENT ? 0 : errno;
    const int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) return errno;
    const int error = empty(directory, found.st_dev, 0);
    close(directory);
    return error != 0 ? error : rmdir(path) == 0 ? 0 : errno;
}

static int make_directories(char *path, mode_t mode)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const bool failed = mkdir(path, mode) != 0 && errno != EEXIST;
        *slash = '/';
        if (failed) return errno;
    }
    return mkdir(path, mode) == 0 || errno == EEXIST ? 0 : errno;
}

static int make_like(const char *path, const char *model)
{
    struct stat found;
    if (lstat(model, &found) != 0) return errno;
    return chown(path, found.st_uid, found.st_gid) == 0 && chmod(path, found.st_mode & 07777) == 0 ? 0 : errno;
}

/* ---- processes ---- */

/* A file of a process as a text; an empty one when it is gone. */
static void put_file(long pid, const char *name, uint32_t most)
{
    uint8_t length[4] = {0};
    char path[64];
    const size_t before = answer_length;
    put(length, sizeof length);
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, name);
    const int error = read_path(path, most);
    if (error != 0 && error != EFBIG) answer_length = before + 4;
    if (answer_length - before - 4 > most) answer_length = before + 4 + most;
    number_to(answer + before, (uint32_t)(answer_length - before - 4));
}

static int list_processes(void)
{
    DIR *directory = opendir("/proc");
    if (!directory) return errno;
    for (const struct dirent *entry; MOST - answer_length > 2 * PATH_MOST && (entry = readdir(directory));) {
        uint8_t number[4];
        char *end;
        const long pid = strtol(entry->d_name, &end, 10);
        if (*end != '\0' || pid <= 0) continue;
        number_to(number, (uint32_t)pid);
        put(number, sizeof number);
        put_file(pid, "stat", COMMAND_MOST);
        put_file(pid, "status", 2 * COMMAND_MOST);
        put_file(pid, "cmdline", COMMAND_MOST);
    }
    closedir(directory);
    return 0;
}

/* ---- what is asked ---- */

static int handle(uint8_t operation)
{
    static char path[PATH_MOST], other[PATH_MOST];
    uint32_t length;
    switch (operation) {
    case READ: take_path(path); return read_path(path, take_number());
    case READ_IN:
        take_path(path);
        take_path(other);
        return read_in(path, other, take_number());
    case WRITE: {
        take_path(path);
        const mode_t mode = (mode_t)take_number();
        const uint8_t *bytes = take_bytes(&length);
        return write_path(path, mode, bytes, length);
    }
    case LIST: take_path(path); return list(path);
    case REMOVE: take_path(path); return remove_path(path);
    case RMDIR: take_path(path); return rmdir(path) == 0 ? 0 : errno;
    case MKDIR: take_path(path); return make_directories(path, (mode_t)take_number());
    case KILL: {
        const pid_t pid = (pid_t)take_number();
        return pid > 1 && kill(pid, (int)take_number()) == 0 ? 0 : pid > 1 ? errno : EINVAL;
    }
    case PROCESSES: return list_processes();
    case LIKE:
        take_path(path);
        take_path(other);
        return make_like(path, other);
    case OWN: {
        take_path(path);
        const uid_t user = (uid_t)take_number();
        const gid_t group = (gid_t)take_number();
        /* the mode last: a new owner loses what a mode may give */
        return lchown(path, user, group) == 0 && chmod(path, (mode_t)take_number() & 07777) == 0 ? 0 : errno;
    }
    default: give_up("it does not know what is asked of it");
    }
}

int main(void)
{
    umask(0077);
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        uint8_t head[4];
        read_all(head, sizeof head);
        request_end = number_at(head);
        if (request_end < 1 || request_end > MOST) give_up("a request has an impossible length");
        read_all(request, request_end);
        request_at = 1;
        answer_length = 0;
        const int error = handle(request[0]);
        if (error != 0) answer_length = 0;
        uint8_t front[8];
        number_to(front, (uint32_t)(4 + answer_length));
        number_to(front + 4, (uint32_t)error);
        write_all(STDOUT_FILENO, front, sizeof front);
        write_all(STDOUT_FILENO, answer, answer_length);
    }
}
