#define _GNU_SOURCE
#include "agent/root.h"

#include "agent/agent.h"
#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define LOWER "/lower"
#define SCRATCH "/scratch"
#define NEW_ROOT "/newroot"
#define RESIZE_EXT4 _IOW('f', 16, uint64_t) /* EXT4_IOC_RESIZE_FS: blocks */

static status mount_at(const char *source, const char *target, const char *type,
                       unsigned long flags, const char *options, struct fault *fault)
{
    if ((mkdir(target, 0755) && errno != EEXIST)
        || (mount(source, target, type, flags, options) && errno != EBUSY)) /* it is there */
        return errno_status(errno, target, fault);
    return OK;
}

/* Small and the same for all in the image; as large as the device that this sandbox has. */
static void grow(const char *device)
{
    struct statfs about;
    uint64_t bytes = 0;
    _cleanup_close_ int top = open(SCRATCH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int disk = open(device, O_RDONLY | O_CLOEXEC);
    if (top < 0 || disk < 0 || fstatfs(top, &about) || ioctl(disk, BLKGETSIZE64, &bytes))
        return;
    uint64_t blocks = bytes / (uint64_t)about.f_bsize;
    if (ioctl(top, RESIZE_EXT4, &blocks))
        fprintf(stderr, "bulkhead-agent: the disk stays small: %s\n", strerror(errno));
}

static status mount_scratch(struct fault *fault)
{
    if (access("/dev/vdb", F_OK))
        return mount_at("scratch", SCRATCH, "tmpfs", MS_NODEV, "mode=0755", fault);
    TRY(mount_at("/dev/vdb", SCRATCH, "ext4", MS_NOATIME | MS_NODEV, "noinit_itable", fault));
    grow("/dev/vdb");
    return OK;
}

static status mount_root(struct fault *fault)
{
    TRY(mount_at("/dev/vda", LOWER, "erofs", MS_RDONLY | MS_NODEV, NULL, fault));
    TRY(mount_scratch(fault));
    if ((mkdir(SCRATCH "/upper", 0755) && errno != EEXIST)
        || (mkdir(SCRATCH "/work", 0755) && errno != EEXIST))
        return errno_status(errno, SCRATCH, fault);
    /* volatile: nothing of it outlives the guest, so nothing is flushed for its sake */
    return mount_at("overlay", NEW_ROOT, "overlay", MS_NODEV,
                    "lowerdir=" LOWER ",upperdir=" SCRATCH "/upper,workdir=" SCRATCH
                    "/work,volatile", fault);
}

/* The initramfs is memory: what is not needed any more is freed. Not what is mounted in it. */
static void discard(int parent, const char *name, dev_t device, int depth)
{
    struct stat about;
    if (unlinkat(parent, name, 0) == 0 || depth > AGENT_DEPTH_MAX)
        return;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd >= 0 && fstat(fd, &about) == 0 && about.st_dev == device ? fdopendir(fd)
                                                                                 : NULL;
    if (directory == NULL) {
        cleanup_close(&fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            discard(fd, entry->d_name, device, depth + 1);
    closedir(directory);
    unlinkat(parent, name, AT_REMOVEDIR);
}

static void discard_initramfs(void)
{
    struct stat about;
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *top = fd >= 0 && fstat(fd, &about) == 0 ? fdopendir(fd) : NULL;
    if (top == NULL) {
        cleanup_close(&fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(top)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            discard(fd, entry->d_name, about.st_dev, 0);
    closedir(top);
}

/* pivot_root(2) cannot leave the initramfs: the new root is moved over it. */
static status switch_root(struct fault *fault)
{
    if ((mkdir(NEW_ROOT "/dev", 0755) && errno != EEXIST)
        || mount("/dev", NEW_ROOT "/dev", NULL, MS_MOVE, NULL))
        return errno_status(errno, "moving /dev", fault);
    discard_initramfs();
    if (chdir(NEW_ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        return errno_status(errno, "moving the root", fault);
    return OK;
}

static status mount_rest(struct fault *fault)
{
    static const struct {
        const char *target, *type, *options;
        unsigned long flags;
    } rest[] = {
        {"/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"/sys/fs/cgroup", "cgroup2", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"/dev/pts", "devpts", "mode=0620,gid=5,ptmxmode=0666", MS_NOSUID | MS_NOEXEC},
        {"/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV},
        {"/run", "tmpfs", "mode=0755", MS_NOSUID | MS_NODEV}};
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"}};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        TRY(mount_at(rest[i].type, rest[i].target, rest[i].type, rest[i].flags, rest[i].options,
                     fault));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) && errno != EEXIST)
            return errno_status(errno, links[i][1], fault);
    if (mkdir("/tmp", 01777) && errno != EEXIST)
        return errno_status(errno, "/tmp", fault);
    return OK;
}

status root_enter(struct fault *fault)
{
    if (access("/dev/vda", F_OK) == 0) {
        TRY(mount_root(fault));
        TRY(switch_root(fault));
    }
    return mount_rest(fault);
}
