#define _GNU_SOURCE
#include "jail/landlock.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#define BIT(n) (UINT64_C(1) << (n))

/* The kernel's own names without the prefix; include/uapi/linux/landlock.h of 6.15 (ABI 7). */
enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };
static const uint64_t fs_write_file = BIT(1), fs_read_file = BIT(2), fs_read_dir = BIT(3),
                      fs_remove_dir = BIT(4), fs_remove_file = BIT(5), fs_make_dir = BIT(7),
                      fs_make_reg = BIT(8), fs_refer = BIT(13), fs_truncate = BIT(14);

struct ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net; /* ABI 4 */
    uint64_t scoped;             /* ABI 6 */
};

struct path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

/* What each ABI can refuse: all of it is refused unless a rule allows it. */
static const struct {
    struct ruleset_attr handled;
    size_t size;
} offers[LANDLOCK_ABI_KNOWN + 1] = {
    [1] = {{BIT(13) - 1, 0, 0}, 8},
    [2] = {{BIT(14) - 1, 0, 0}, 8},                  /* + refer */
    [3] = {{BIT(15) - 1, 0, 0}, 8},                  /* + truncate */
    [4] = {{BIT(15) - 1, BIT(2) - 1, 0}, 16},        /* + bind, connect TCP */
    [5] = {{BIT(16) - 1, BIT(2) - 1, 0}, 16},        /* + ioctl on devices */
    [6] = {{BIT(16) - 1, BIT(2) - 1, BIT(2) - 1}, 24}, /* + abstract sockets, signals */
    [7] = {{BIT(16) - 1, BIT(2) - 1, BIT(2) - 1}, 24},
};

status landlock_abi(uint32_t *ret, struct fault *fault)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    if (abi < 1)
        return FAIL(UNAVAILABLE, fault, "Landlock: %s",
                    errno == EOPNOTSUPP ? "built into the kernel but not enabled (lsm=)"
                                        : strerror(errno));
    *ret = abi > LANDLOCK_ABI_KNOWN ? LANDLOCK_ABI_KNOWN : (uint32_t)abi;
    return OK;
}

static uint64_t rights_of(uint32_t use)
{
    uint64_t rights = 0;
    if (use & JAIL_READ)
        rights |= fs_read_file | fs_read_dir;
    if (use & JAIL_WRITE)
        rights |= fs_write_file | fs_remove_dir | fs_remove_file | fs_make_dir | fs_make_reg
                | fs_refer | fs_truncate;
    return rights;
}

status landlock_restrict(uint32_t abi, const struct jail_directory *directories, size_t count,
                         struct fault *fault)
{
    if (abi < 1 || abi > LANDLOCK_ABI_KNOWN)
        return FAIL(INTERNAL, fault, "Landlock: ABI %u is not known", abi);
    const struct ruleset_attr *handled = &offers[abi].handled;
    _cleanup_close_ int ruleset =
        (int)syscall(SYS_landlock_create_ruleset, handled, offers[abi].size, 0);
    if (ruleset < 0)
        return FAIL(INTERNAL, fault, "Landlock: create_ruleset: %s", strerror(errno));
    for (size_t i = 0; i < count; i++) {
        struct path_beneath_attr rule = {
            .allowed_access = rights_of(directories[i].use) & handled->handled_access_fs,
            .parent_fd = directories[i].fd};
        if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0))
            return FAIL(INTERNAL, fault, "Landlock: directory %zu: %s", i, strerror(errno));
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0))
        return FAIL(INTERNAL, fault, "Landlock: restrict_self: %s", strerror(errno));
    return OK;
}
