/* See grant.h. */
#define _GNU_SOURCE
#include "grant.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

/* An access control list as the kernel takes it (acl(5)): little-endian, ordered by tag. */
enum { ACL_VERSION = 2, ACL_OWNER = 1, ACL_USER = 2, ACL_OWNING_GROUP = 4, ACL_GROUP = 8, ACL_MASK = 16, ACL_OTHERS = 32 };
enum { MOST_ENTRIES = 256, READ = 4, WRITE = 2, RIGHTS = 7 };
struct entry {
    uint16_t tag, rights;
    uint32_t id;
};
struct list {
    uint32_t version;
    struct entry entries[MOST_ENTRIES];
};
static const char list_name[] = "system.posix_acl_access";

/* The list of a file, or what its mode says as one; how many entries it has, or -1. */
static int listed(int file, struct list *list)
{
    const ssize_t length = fgetxattr(file, list_name, list, sizeof *list);
    if (length >= (ssize_t)sizeof list->version && list->version == ACL_VERSION)
        return (int)(((size_t)length - sizeof list->version) / sizeof(struct entry));
    struct stat what;
    if (length >= 0 || errno != ENODATA || fstat(file, &what) != 0) return -1;
    const struct entry plain[] = {{ACL_OWNER, (uint16_t)(what.st_mode >> 6 & RIGHTS), UINT32_MAX},
                                  {ACL_OWNING_GROUP, (uint16_t)(what.st_mode >> 3 & RIGHTS), UINT32_MAX},
                                  {ACL_OTHERS, (uint16_t)(what.st_mode & RIGHTS), UINT32_MAX}};
    memcpy(list->entries, plain, sizeof plain);
    return sizeof plain / sizeof plain[0];
}

/*
 * Gives a user these rights to a file, or takes back those it has (0). Nobody else has more or less for it: what the mask kept from
 * the others is gone from their entries before it grows.
 */
static bool set(int file, uint32_t user, uint16_t rights)
{
    struct list before, after = {.version = ACL_VERSION};
    const int count = listed(file, &before);
    if (count < 0) return false;
    uint16_t mask = RIGHTS;
    bool known = false;
    for (int each = 0; each < count; each++) {
        if (before.entries[each].tag == ACL_MASK) mask = before.entries[each].rights;
        known = known || (before.entries[each].tag == ACL_USER && before.entries[each].id == user);
    }
    if (rights == 0 && !known) return true;
    int next = 0, named = 0;
    uint16_t most = rights;
    for (int each = 0; each < count; each++) {
        struct entry one = before.entries[each];
        if (one.tag == ACL_MASK || (one.tag == ACL_USER && one.id == user)) continue;
        if (next >= MOST_ENTRIES - 2) {
            errno = ENOSPC;
            return false;
        }
        if (one.tag == ACL_OWNING_GROUP && rights != 0) {
            after.entries[next++] = (struct entry){ACL_USER, rights, user};
            named++;
        }
        if (one.tag == ACL_USER || one.tag == ACL_OWNING_GROUP || one.tag == ACL_GROUP) {
            one.rights &= mask;
            most |= one.rights;
            if (one.tag != ACL_OWNING_GROUP) named++;
        }
        if (one.tag == ACL_OTHERS && named > 0) after.entries[next++] = (struct entry){ACL_MASK, most, UINT32_MAX};
        after.entries[next++] = one;
    }
    return fsetxattr(file, list_name, &after, sizeof after.version + (size_t)next * sizeof(struct entry), 0) == 0;
}

bool grant(int file, uint32_t user, bool writes)
{
    const mode_t wanted = writes ? READ | WRITE : READ;
    struct stat what;
    if (fstat(file, &what) != 0) return false;
    return (what.st_mode & wanted) == wanted || set(file, user, (uint16_t)wanted);
}

bool withdraw(const char *path, uint32_t user)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return errno == ENOENT || errno == ENOTDIR;
    const bool done = set(file, user, 0) || errno == EOPNOTSUPP;
    const int why = errno;
    close(file);
    errno = why;
    return done;
}
