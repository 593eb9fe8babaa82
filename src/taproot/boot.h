/*
 * What the kernel leaves to the first process of a machine, done before anything else: the API file systems, standard
 * descriptors on the console, the log in the kernel's, a root that is not the initramfs' own, loopback, modules.
 *
 * Use: boot_early() first of all, in every taproot; it finds out by itself whether this is the machine's PID 1 and does
 * nothing elsewhere. Every step that fails is told and the next one is tried: a machine without cgroups still has a
 * console that says so.
 *
 * Traps: nothing here may end the process, for that is a kernel panic; boot_again() is what is left when nothing else is.
 */
#ifndef BOOT_H
#define BOOT_H

#include "taproot.h"

/* Where the machine's PID 1 finds its command line: an argument per line. The kernel's own is for the kernel. */
#define BOOT_ARGUMENTS "/etc/taproot"
/* Where an initramfs has the images with the files of the system, and the modules that mounting them takes. */
#define BOOT_IMAGES "/images"

/* True on the machine's PID 1, which has all that it can get after it. */
bool boot_early(char **arguments);
/*
 * Mounts the images of BOOT_IMAGES as /usr: they stay compressed in memory, and of what is read from them only that is kept
 * unpacked which memory has room for.
 */
void boot_system(void);
/* The command line of BOOT_ARGUMENTS, or else the usual one. Ends with NULL. */
char **boot_arguments(int *count);
/* The one that starts the brain where an image has it. */
char **boot_usual_arguments(int *count);
/*
 * Nobody writes to the root from here on, and to the programs in it: what changes lies on other mounts. For a guest, whose OCI
 * runtime else makes sure of that by itself at every call.
 */
void boot_seal_root(void);
/* Makes the brain's cgroup and its limit; cgroup2 or nothing. */
void boot_brain_cgroup(const char *directory, uint64_t memory_most);
/*
 * Reads the files that a brain's command line names, so that their pages in memory are charged to nobody's limit: the first who
 * reads a page is. Charged to the brain, its own program is what the kernel takes away first when it comes near its limit, and
 * it reads and unpacks that again and again instead of being ended.
 */
void boot_brain_program(char **words);
/* Watches the machine's power buttons in the loop (TOKEN_BUTTON). */
void boot_watch_buttons(void);
/* The loop says that one may be pressed; true: it is. */
bool boot_button_pressed(void);
/* Starts taproot anew in this process: its children stay, its tables are lost. Returns only when there is no /proc. */
void boot_again(void);

#endif
