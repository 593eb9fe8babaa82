/* See boot.h: boot_system(). */
#define _GNU_SOURCE
#include "boot.h"
#include "taproot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From the kernel's linux/loop.h, which musl does not bring along. */
enum { LOOP_CONFIGURE = 0x4C0A, LOOP_CTL_GET_FREE = 0x4C82, LO_FLAGS_READ_ONLY = 1, LO_FLAGS_AUTOCLEAR = 4 };
struct loop_config {
    uint32_t file, block_size;
    uint64_t device, inode, real_device, offset, size_limit;
    uint32_t number, encryption, encryption_key_size, flags;
    uint8_t names[128], key[32];
    uint64_t unused[2], reserved[8];
};

#define MOUNTED BOOT_IMAGES "/mounted"

/* A loop device with the file, or -1; the device is free again when nobody uses it any more. */
static int loop_device(const char *file, char *path, size_t room)
{
    struct loop_config config;
    memset(&config, 0, sizeof config);
    const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    const int image = control < 0 ? -1 : open(file, O_RDONLY | O_CLOEXEC);
    int device = -1;
    if (image >= 0) {
        snprintf(path, room, "/dev/loop%ld", syscall(SYS_ioctl, control, LOOP_CTL_GET_FREE, 0));
        device = open(path, O_RDONLY | O_CLOEXEC);
        config.file = (uint32_t)image;
        config.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
        if (device >= 0 && syscall(SYS_ioctl, device, LOOP_CONFIGURE, &config) != 0) {
            const int error = errno;
            close(device);
            device = -1;
            errno = error;
        }
    }
    const int error = errno;
    if (image >= 0) close(image);
    if (control >= 0) close(control);
    errno = error;
    return device;
}

static bool mount_image(const char *name)
{
    char file[64], target[64], device_path[32];
    snprintf(file, sizeof file, BOOT_IMAGES "/%s", name);
    snprintf(target, sizeof target, MOUNTED "/%s", name);
    mkdir(target, 0755);
    const int device = loop_device(file, device_path, sizeof device_path);
    const bool mounted =
        device >= 0 && mount(device_path, target, "squashfs", MS_RDONLY | MS_NODEV | MS_NOSUID, NULL) == 0;
    if (!mounted) say("cannot mount %s: %s", file, strerror(errno));
    if (device >= 0) close(device);
    return mounted;
}

void boot_system(void)
{
    struct stat there;
    if (stat(BOOT_IMAGES, &there) != 0) return; /* all of it is in the initramfs itself */
    mkdir(MOUNTED, 0755);
    if (!mount_image("system") || !mount_image("ironwood")) return;
    /* A third one, where there are to be virtual machines. */
    const bool hypervisor = stat(BOOT_IMAGES "/hypervisor", &there) == 0 && mount_image("hypervisor");
    /* What the initramfs has in /usr itself was put there on purpose: it lies over all. */
    mkdir("/usr", 0755);
    const char *const layers = hypervisor ? "lowerdir=/usr:" MOUNTED "/ironwood:" MOUNTED "/hypervisor:" MOUNTED "/system"
                                          : "lowerdir=/usr:" MOUNTED "/ironwood:" MOUNTED "/system";
    if (mount("overlay", "/usr", "overlay", MS_RDONLY | MS_NODEV | MS_NOSUID, layers) == 0) return;
    if (errno != ENODEV) say("cannot lay the system's files over each other: %s", strerror(errno));
    /* A kernel without overlayfs: the brain's files lie in one directory, which the system's image has, too. */
    if (mount(MOUNTED "/system", "/usr", NULL, MS_BIND, NULL) != 0 ||
        mount(MOUNTED "/ironwood/lib/ironwood", "/usr/lib/ironwood", NULL, MS_BIND, NULL) != 0)
        say("cannot mount the system's files: %s", strerror(errno));
}
