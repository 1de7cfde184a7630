#define _GNU_SOURCE
#include "runner/runner.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Where the new root is built, over a folder that every host has. */
#define NEW "/tmp"

enum { TREE_MIB_MIN = 16, OWN_MIB = 16 };

static status refused(const char *step, struct fault *fault)
{
    return FAIL(UNAVAILABLE, fault, "%s: %s", step, strerror(errno));
}

static status make_folders(struct fault *fault)
{
    static const char *const folders[] = {
        NEW "/usr", NEW "/usr/lib", NEW "/usr/lib64", NEW "/dev", NEW "/proc", NEW "/run",
        NEW "/sys", NEW "/sys/fs", NEW "/sys/fs/cgroup", NEW "/tmp", NEW RUNNER_BUNDLE,
        NEW RUNNER_TREE};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (mkdir(folders[i], 0755))
            return refused(folders[i], fault);
    if (symlink("usr/lib", NEW "/lib") || symlink("usr/lib64", NEW "/lib64"))
        return refused("links", fault);
    return OK;
}

static status bind(const char *from, const char *to, bool file, uint64_t attributes,
                   struct fault *fault)
{
    _cleanup_close_ int made = file ? open(to, O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    struct mount_attr set = {.attr_set = attributes};
    if ((file && made < 0) || mount(from, to, NULL, MS_BIND | MS_REC, NULL)
        || mount_setattr(AT_FDCWD, to, AT_RECURSIVE, &set, sizeof set))
        return refused(from, fault);
    return OK;
}

static status bind_system(enum sandbox_tier tier, struct fault *fault)
{
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                          "/dev/urandom", "/dev/tty"};
    /* reads as zeros, too, and cannot be mapped: what is shared of /dev/zero is on no account */
    static const char zeros[] = "/dev/full";
    const uint64_t program = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        char to[32];
        snprintf(to, sizeof to, NEW "%s", devices[i]);
        const char *from = strcmp(devices[i], "/dev/zero") == 0 ? zeros : devices[i];
        TRY(bind(from, to, true, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, fault));
    }
    const char *runtime = tier == SANDBOX_GVISOR ? "/usr/bin/runsc" : "/usr/bin/crun";
    TRY(bind(runtime, NEW RUNNER_RUNTIME, true, program, fault));
    if (tier == SANDBOX_GVISOR) /* a static program, which needs nothing else of the host */
        return OK;
    TRY(bind("/usr/lib64", NEW "/usr/lib64", false, program, fault));
    return bind("/usr/lib", NEW "/usr/lib", false, program, fault);
}

static status write_config(enum sandbox_tier tier, const struct sandbox_spec *spec,
                           struct fault *fault)
{
    _cleanup_buffer_ struct buffer config = buffer_of(RUNNER_CONFIG_MAX);
    runner_config(&config, tier, spec);
    TRY(buffer_check(&config, "runtime's configuration", fault));
    _cleanup_close_ int file = open(NEW RUNNER_BUNDLE "/config.json",
                                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0 || write(file, config.data, config.length) != (ssize_t)config.length)
        return refused("runtime's configuration", fault);
    return OK;
}

/* runsc lays a RAM disk without a bound over an empty /tmp. */
static status keep_tmp(int to, struct fault *fault)
{
    if (mkdirat(to, "tmp", 01777) && errno != EEXIST)
        return refused("/tmp", fault);
    _cleanup_close_ int file = openat(to, "tmp/.bulkhead",
                                      O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0400);
    if (file < 0)
        return refused("/tmp", fault);
    return OK;
}

static status copy_image(enum sandbox_tier tier, const struct sandbox_spec *spec, int tree,
                         int agent, struct fault *fault)
{
    char options[64];
    uint32_t mib = spec->disk_mib > TREE_MIB_MIN ? spec->disk_mib : TREE_MIB_MIN;
    snprintf(options, sizeof options, "mode=755,size=%um,nr_inodes=%u", mib, mib * 256);
    if (mount("tmpfs", NEW RUNNER_TREE, "tmpfs", MS_NOSUID | MS_NODEV, options))
        return refused("the sandbox's disk", fault);
    _cleanup_close_ int to = open(NEW RUNNER_TREE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int own = open(NEW, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0 || own < 0)
        return refused("the sandbox's disk", fault);
    TRY(runner_copy_tree(to, tree, fault));
    if (tier == SANDBOX_GVISOR)
        TRY(keep_tmp(to, fault));
    return runner_copy_file(own, &RUNNER_AGENT[1], agent, 0555, fault);
}

/* As jail_blank does: on an initial RAM disk, which cannot be pivoted away, the new root is laid
 * over it. */
static status enter(struct fault *fault)
{
    if (chdir(NEW))
        return refused("private root", fault);
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH))
            return refused("private root: umount", fault);
    } else if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".")) {
        return refused("private root: pivot_root", fault);
    }
    if (chdir("/"))
        return refused("private root", fault);
    return OK;
}

status runner_root(enum sandbox_tier tier, const struct sandbox_spec *spec, int tree, int agent,
                   struct fault *fault)
{
    char options[32];
    snprintf(options, sizeof options, "mode=755,size=%dm", OWN_MIB);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return refused("private root: propagation", fault);
    if (mount("tmpfs", NEW, "tmpfs", MS_NOSUID, options))
        return refused("private root: tmpfs", fault);
    TRY(make_folders(fault));
    TRY(bind_system(tier, fault));
    if (mount("proc", NEW "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
        return refused("a /proc of its own", fault);
    TRY(copy_image(tier, spec, tree, agent, fault));
    TRY(write_config(tier, spec, fault));
    return enter(fault);
}
