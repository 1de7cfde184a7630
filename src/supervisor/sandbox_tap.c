/* sandbox_tap.c: a network card's other end, in the network namespace of the monitor: an interface
 * that is up, has no address, and stands alone. */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Without an address IPv4 does not answer; IPv6 would give itself one. */
static status silence_ipv6(struct fault *fault)
{
    static const char path[] = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    _cleanup_close_ int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 && errno == ENOENT)
        return OK; /* this kernel has none */
    if (file < 0 || write(file, "1", 1) != 1)
        return FAIL(UNAVAILABLE, fault, "tap: %s: %s", path, strerror(errno));
    return OK;
}

static status bring_up(struct ifreq *interface, struct fault *fault)
{
    _cleanup_close_ int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    interface->ifr_flags = IFF_UP;
    if (control < 0 || ioctl(control, SIOCSIFFLAGS, interface))
        return FAIL(UNAVAILABLE, fault, "tap: up: %s", strerror(errno));
    return OK;
}

static status make(int *ret, struct fault *fault)
{
    struct ifreq interface = {.ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = "guest"};
    TRY(silence_ipv6(fault));
    _cleanup_close_ int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap < 0)
        return FAIL(UNAVAILABLE, fault, "tap: /dev/net/tun: %s", strerror(errno));
    if (ioctl(tap, TUNSETIFF, &interface))
        return FAIL(UNAVAILABLE, fault, "tap: %s", strerror(errno));
    TRY(bring_up(&interface, fault));
    *ret = take_fd(&tap);
    return OK;
}

status tap_make(int *ret, const struct jail_child *process, struct fault *fault)
{
    _cleanup_close_ int ours = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int theirs = openat(process->proc, "ns/net", O_RDONLY | O_CLOEXEC);
    if (ours < 0 || theirs < 0 || setns(theirs, CLONE_NEWNET))
        return FAIL(UNAVAILABLE, fault, "tap: its network namespace: %s", strerror(errno));
    status made = make(ret, fault);
    if (setns(ours, CLONE_NEWNET))
        abort(); /* better none than a supervisor in the network of a guest */
    return made;
}
