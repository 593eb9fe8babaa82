/*
 * tree: makes the files of a layer as the brain says. It is in a root of its own and follows no link, so nothing leads out;
 * what is in the way of something new goes, with all below it.
 *
 * Traps: a new directory is closed until its attributes come, which is when nothing is put into it any more (its time would change).
 * An owner is set before a mode, which loses its special bits otherwise, and both before extended attributes.
 */
#define _GNU_SOURCE
#include "unpack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { PATH_MOST = 4096 };

static int root = -1;
/* The directory that was used last: entries that follow each other mostly share it. */
static int parent = -1;
static char parent_path[PATH_MOST];

void tree_open(int directory)
{
    root = directory;
}

static int open_directory(int in, const char *name)
{
    return openat(in, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void forget_parent(void)
{
    if (parent >= 0 && parent != root) close(parent);
    parent = -1;
}

/* The directory at the first `length` bytes of `path`, step by step. */
static int walk(const char *path, size_t length)
{
    char step[NAME_MAX + 1];
    int at = root;
    for (size_t from = 0; from < length;) {
        const char *slash = memchr(path + from, '/', length - from);
        const size_t size = slash ? (size_t)(slash - path) - from : length - from;
        if (size == 0 || size > NAME_MAX) give_up("that is no path");
        memcpy(step, path + from, size);
        step[size] = '\0';
        if (strcmp(step, ".") == 0 || strcmp(step, "..") == 0) give_up("that is no path");
        const int below = open_directory(at, step);
        if (below < 0) failed("open", path);
        if (at != root) close(at);
        at = below;
        from += size + 1;
    }
    return at;
}

/* Sets `parent`; the last step of the path. */
static const char *enter(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    const size_t length = slash ? (size_t)(slash - path) : 0;
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || length >= PATH_MOST) give_up("that is no path");
    if (parent < 0 || strncmp(parent_path, path, length) != 0 || parent_path[length] != '\0') {
        forget_parent();
        parent = walk(path, length);
        memcpy(parent_path, path, length);
        parent_path[length] = '\0';
    }
    return name;
}

/* Removes what is there, with all below it; the depth is that of a layer, which the brain bounds. */
static void take_away(int in, const char *name, const char *path)
{
    if (unlinkat(in, name, 0) == 0 || errno == ENOENT) return;
    if (errno != EISDIR) failed("replace", path);
    const int below = open_directory(in, name);
    DIR *entries = below < 0 ? NULL : fdopendir(below);
    if (!entries) failed("replace", path);
    for (const struct dirent *entry; (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) take_away(below, entry->d_name, path);
    closedir(entries);
    if (unlinkat(in, name, AT_REMOVEDIR) != 0) failed("replace", path);
}

/* Whether to try once more: what was in the way is gone. */
static bool cleared(const char *name, const char *path)
{
    if (errno != EEXIST) return false;
    take_away(parent, name, path);
    return true;
}

static struct timespec time_of(const struct attributes *attributes)
{
    return (struct timespec){.tv_sec = attributes->seconds, .tv_nsec = (long)attributes->nanoseconds};
}

/* Of an open file or directory. */
static void give_attributes(int file, const char *path, const struct attributes *attributes)
{
    const struct timespec times[2] = {time_of(attributes), time_of(attributes)};
    const uint8_t *at = attributes->pairs;
    char name[XATTR_NAME_MAX + 1];
    if (fchown(file, attributes->uid, attributes->gid) != 0) failed("change the owner of", path);
    if (fchmod(file, attributes->mode) != 0) failed("change the mode of", path);
    for (uint32_t i = 0; i < attributes->xattrs; i++) {
        uint32_t name_length, length;
        const uint8_t *key = next_text(&at, NULL, &name_length);
        const uint8_t *value = next_text(&at, NULL, &length);
        if (name_length > XATTR_NAME_MAX) {
            errno = ERANGE;
            failed("set an extended attribute of", path);
        }
        memcpy(name, key, name_length);
        name[name_length] = '\0';
        if (fsetxattr(file, name, value, length, 0) != 0) failed("set an extended attribute of", path);
    }
    if (futimens(file, times) != 0) failed("set the time of", path);
}

/* Of what cannot be opened. */
static void give_attributes_at(const char *name, const char *path, const struct attributes *attributes, bool has_mode)
{
    const struct timespec times[2] = {time_of(attributes), time_of(attributes)};
    if (fchownat(parent, name, attributes->uid, attributes->gid, AT_SYMLINK_NOFOLLOW) != 0) failed("change the owner of", path);
    if (has_mode && fchmodat(parent, name, attributes->mode, 0) != 0) failed("change the mode of", path);
    if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0) failed("set the time of", path);
}

void tree_directory(const char *path)
{
    const char *name = enter(path);
    if (mkdirat(parent, name, 0700) == 0) return;
    if (!cleared(name, path) || mkdirat(parent, name, 0700) != 0) failed("make the directory", path);
}

void tree_symlink(const char *path, const char *target, const struct attributes *attributes)
{
    const char *name = enter(path);
    if (symlinkat(target, parent, name) != 0 && (!cleared(name, path) || symlinkat(target, parent, name) != 0))
        failed("make the symbolic link", path);
    give_attributes_at(name, path, attributes, false);
}

void tree_hardlink(const char *path, const char *target)
{
    const char *target_slash = strrchr(target, '/');
    const int from = walk(target, target_slash ? (size_t)(target_slash - target) : 0);
    const char *target_name = target_slash ? target_slash + 1 : target;
    const char *name = enter(path);
    if (linkat(from, target_name, parent, name, 0) != 0 && (!cleared(name, path) || linkat(from, target_name, parent, name, 0) != 0))
        failed("make the hard link", path);
    if (from != root) close(from);
}

void tree_node(const char *path, uint32_t type, uint32_t major, uint32_t minor, const struct attributes *attributes)
{
    const char *name = enter(path);
    const dev_t device = makedev(major, minor);
    if (type != S_IFCHR && type != S_IFBLK && type != S_IFIFO) give_up("that is no kind of node");
    if (mknodat(parent, name, type | 0600, device) != 0 && (!cleared(name, path) || mknodat(parent, name, type | 0600, device) != 0))
        failed("make the node", path);
    give_attributes_at(name, path, attributes, true);
}

int tree_file(const char *path)
{
    const char *name = enter(path);
    const int how = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int file = openat(parent, name, how, 0600);
    if (file < 0 && cleared(name, path)) file = openat(parent, name, how, 0600);
    if (file < 0) failed("make the file", path);
    return file;
}

void tree_file_done(int file, const char *path, const struct attributes *attributes)
{
    give_attributes(file, path, attributes);
    if (close(file) != 0) failed("close", path);
}

void tree_attributes(const char *path, const struct attributes *attributes)
{
    const int directory = *path == '\0' ? root : open_directory((enter(path), parent), strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    if (directory < 0) failed("open the directory", path);
    give_attributes(directory, path, attributes);
    if (directory != root) close(directory);
}

void tree_sync(void)
{
    if (syncfs(root) != 0) failed("sync", "the file system");
}
