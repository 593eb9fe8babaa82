/*
 * launch [--network FILE|-] [--alone] [--by-name] [--sees PATH]… UID GID[,GROUP…] [N=KIND:PATH]… -- PROGRAM [ARGUMENT…]: a program with its
 * files and nothing else. Virtual machine monitors are started so: they never run as root, and neither open a file by its path nor
 * make one.
 * launch --withdraw UID [PATH]…: takes back from UID what --by-name gave it; a file that is gone is fine.
 * launch --lend PID|- UID ro|rw|dir:PATH PLACE: a file, or a directory that was made for it and becomes its own, for a PROGRAM that
 * runs: UID gets the right to it (-: it has it), and the process PID sees it at PLACE (-: where it is; lend.h).
 * launch --take-back PID PLACE: it sees it no more. The right is a matter of --withdraw.
 *
 * The files are opened as whoever calls this, and given as the descriptors N. KIND is one of
 *   ro, rw   a regular file or block device that a person named; symbolic links are followed
 *   own      a regular file that was made for PROGRAM, read and written: no symbolic link, and under no second name
 *   log      the same, written at its end
 *   dir      a directory that was made for PROGRAM: no symbolic link
 *   lent     the same, in which only PROGRAM sees what it is lent: for one without a root of its own
 *   socket   a unix socket that listens there; what was there is taken away
 *   peer     a unix socket that is connected to whoever listens there
 * Then it gets System V objects of its own (with --network another network: that of the namespace FILE, or with - one with nothing in
 * it; with --alone it sees no process but itself, and the one that was called waits for its end), gives up every capability it could ever
 * have, becomes UID (- for both: stays who it is), can never gain a privilege again, and becomes PROGRAM. With --sees it has a root
 * of its own, where of the host's there is only what these paths say (room.h); else paths mean to PROGRAM what they mean to every
 * user.
 *
 * A PROGRAM that only takes names of files opens them once more, as /proc/self/fd/N, and for that needs the right to: --by-name gives
 * it to UID (grant.h), for each file that not everybody may open so.
 *
 * Trap: own and socket are for directories that UID cannot write to; launch cannot know.
 *
 * Exit codes: 66 a file cannot be opened, 69 PROGRAM cannot be executed, 71 anything else; standard error says why.
 */
#define _GNU_SOURCE
#include <grp.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "grant.h"
#include "lend.h"
#include "opened.h"
#include "room.h"

enum { MOST_GROUPS = 8, MOST_SEEN = 64, FIRST_FILE = 3, LAST_FILE = 255, BACKLOG = 8 };
enum { NO_INPUT = 66, UNAVAILABLE = 69, OS_ERROR = 71, USAGE = 64 };

static _Noreturn void fail(int code, const char *what)
{
    fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
    exit(code);
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: launch [--network FILE|-] [--alone] [--by-name] [--sees PATH]... UID GID[,GROUP...]\n"
                    "              [N=ro|rw|own|log|dir|lent|socket|peer:PATH]... -- PROGRAM [ARGUMENT...]\n"
                    "       launch --withdraw UID [PATH]...\n"
                    "       launch --lend PID|- UID ro|rw|dir:PATH PLACE\n"
                    "       launch --take-back PID PLACE\n");
    exit(USAGE);
}

/* Of a user, a group or a descriptor. Not UINT32_MAX, which setresuid(2) takes for "as before". */
static uint32_t number(const char **text, char end)
{
    char *rest;
    const long value = strtol(*text, &rest, 10);
    if (rest == *text || value < 0 || value >= UINT32_MAX || (*rest != end && *rest != '\0')) usage();
    *text = *rest == '\0' ? rest : rest + 1;
    return (uint32_t)value;
}

/* Whether the word goes on with this prefix, which is passed over. */
static bool takes(const char **word, const char *prefix)
{
    const size_t length = strlen(prefix);
    if (strncmp(*word, prefix, length) != 0) return false;
    *word += length;
    return true;
}

/* Who opens files once more by their names; NOBODY: none does. */
static const uint32_t NOBODY = UINT32_MAX;
static uint32_t reader = UINT32_MAX;

static int needed(const char *path, bool writes, bool own)
{
    const int file = opened(path, writes, own);
    if (file < 0) fail(NO_INPUT, path);
    if (reader != NOBODY && (own ? fchown(file, reader, reader) != 0 : !grant(file, reader, writes))) fail(NO_INPUT, path);
    return file;
}

static int directory(const char *path)
{
    const int file = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) fail(NO_INPUT, path);
    return file;
}

static int withdraw_all(int count, char **words)
{
    if (count < 1) usage();
    const char *text = words[0];
    const uint32_t user = number(&text, '\0');
    int code = 0;
    for (int each = 1; each < count; each++) {
        if (withdraw(words[each], user)) continue;
        fprintf(stderr, "launch: %s: %s\n", words[each], strerror(errno));
        code = NO_INPUT;
    }
    return code;
}

static pid_t process(const char *text)
{
    const uint32_t pid = number(&text, '\0');
    if (pid == 0 || pid > INT32_MAX) usage();
    return (pid_t)pid;
}

static int lend_one(int count, char **words)
{
    if (count != 4) usage();
    const char *user = words[1], *word = words[2];
    if (strcmp(user, "-") != 0) reader = number(&user, '\0');
    int file = -1;
    bool writes = true;
    if (takes(&word, "ro:")) file = needed(word, writes = false, false);
    else if (takes(&word, "rw:")) file = needed(word, true, false);
    else if (takes(&word, "dir:")) {
        file = directory(word);
        if (reader != NOBODY && fchown(file, reader, reader) != 0) fail(NO_INPUT, word);
    } else usage();
    if (strcmp(words[0], "-") != 0 && !lend(process(words[0]), file, words[3], writes)) fail(OS_ERROR, words[3]);
    return 0;
}

static int take_back(int count, char **words)
{
    if (count != 2) usage();
    if (!lend_back(process(words[0]), words[1])) fail(OS_ERROR, words[1]);
    return 0;
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        fail(NO_INPUT, path);
    }
    strcpy(address.sun_path, path);
    return address;
}

static int listening(const char *path)
{
    const struct sockaddr_un address = address_of(path);
    if (unlink(path) != 0 && errno != ENOENT) fail(NO_INPUT, path);
    const int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0 || bind(file, (const struct sockaddr *)&address, sizeof address) != 0 || listen(file, BACKLOG) != 0)
        fail(NO_INPUT, path);
    return file;
}

static int peer(const char *path)
{
    const struct sockaddr_un address = address_of(path);
    const int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0 || connect(file, (const struct sockaddr *)&address, sizeof address) != 0) fail(NO_INPUT, path);
    return file;
}

static void give(const char *word)
{
    const uint32_t place = number(&word, '=');
    if (place < FIRST_FILE || place > LAST_FILE) usage();
    int file = -1;
    if (takes(&word, "ro:")) file = needed(word, false, false);
    else if (takes(&word, "rw:")) file = needed(word, true, false);
    else if (takes(&word, "own:")) file = needed(word, true, true);
    else if (takes(&word, "log:")) {
        file = needed(word, true, true);
        if (fcntl(file, F_SETFL, O_APPEND) != 0) fail(NO_INPUT, word);
    } else if (takes(&word, "dir:")) file = directory(word);
    else if (takes(&word, "lent:")) {
        file = lend_begin(word);
        if (file < 0) fail(OS_ERROR, word);
    } else if (takes(&word, "socket:")) file = listening(word);
    else if (takes(&word, "peer:")) file = peer(word);
    else usage();
    if (file == (int)place ? fcntl(file, F_SETFD, 0) != 0 : dup2(file, (int)place) < 0) fail(OS_ERROR, word);
    if (file != (int)place) close(file);
}

/*
 * Of the bounding set: who has none of it gets no capability from any file. The kernel says where they end. A root that may not do
 * so (in some container) goes on: no new privileges says the same once more.
 */
static void bound(void)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EPERM) fail(OS_ERROR, "giving up capabilities");
}

static void become(const char *user, const char *groups)
{
    gid_t list[MOST_GROUPS];
    size_t count = 0;
    const uid_t uid = number(&user, '\0');
    while (*groups != '\0') {
        if (count == MOST_GROUPS) usage();
        list[count++] = number(&groups, ',');
    }
    if (count == 0) usage();
    if (setgroups(count - 1, list + 1) != 0 || setresgid(list[0], list[0], list[0]) != 0 ||
        setresuid(uid, uid, uid) != 0)
        fail(OS_ERROR, "becoming another user");
}

static void enter_network(const char *file)
{
    if (strcmp(file, "-") == 0) {
        if (unshare(CLONE_NEWNET) != 0) fail(OS_ERROR, "a network of its own");
        return;
    }
    const int opened = open(file, O_RDONLY | O_CLOEXEC);
    if (opened < 0 || setns(opened, CLONE_NEWNET) != 0) fail(OS_ERROR, file);
    close(opened);
}

/*
 * Goes on as the first of a process namespace; who was called waits for its end and ends as it did. Whoever ends the one ends the other:
 * they are in one process group, and the end of the first is the end of the second.
 */
static void separate(void)
{
    if (unshare(CLONE_NEWPID) != 0) fail(OS_ERROR, "processes of its own");
    const pid_t first = fork();
    if (first < 0) fail(OS_ERROR, "processes of its own");
    if (first == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail(OS_ERROR, "processes of its own");
        return;
    }
    syscall(SYS_close_range, FIRST_FILE, ~0u, 0);
    bound();
    int status;
    while (waitpid(first, &status, 0) < 0)
        if (errno != EINTR) fail(OS_ERROR, "waiting");
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int main(int count, char **words)
{
    int next = 1;
    if (next < count && strcmp(words[next], "--withdraw") == 0) return withdraw_all(count - 2, words + 2);
    if (next < count && strcmp(words[next], "--lend") == 0) return lend_one(count - 2, words + 2);
    if (next < count && strcmp(words[next], "--take-back") == 0) return take_back(count - 2, words + 2);
    const char *network = NULL;
    if (next + 1 < count && strcmp(words[next], "--network") == 0) {
        network = words[next + 1];
        next += 2;
    }
    const bool alone = next < count && strcmp(words[next], "--alone") == 0;
    if (alone) next++;
    const bool by_name = next < count && strcmp(words[next], "--by-name") == 0;
    if (by_name) next++;
    const char *sees[MOST_SEEN];
    int seen = 0;
    for (; next + 1 < count && strcmp(words[next], "--sees") == 0; next += 2) {
        if (seen == MOST_SEEN) usage();
        sees[seen++] = words[next + 1];
    }
    if (next + 2 >= count) usage();
    const char *user = words[next++], *groups = words[next++];
    if (by_name && strcmp(user, "-") != 0) {
        const char *text = user;
        reader = number(&text, '\0');
    }
    for (; next < count && strcmp(words[next], "--") != 0; next++) give(words[next]);
    if (++next >= count) usage();
    /* without the right to it there is none to lose */
    if (unshare(CLONE_NEWIPC) == 0 && network) enter_network(network);
    if (alone) separate();
    if (seen > 0) room_enter(sees, seen);
    if (strcmp(user, "-") != 0) {
        bound();
        become(user, groups);
    }
    /* a core would have the guest's memory in it */
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail(OS_ERROR, "giving up");
    umask(077);
    execvp(words[next], words + next);
    fail(UNAVAILABLE, words[next]);
}
