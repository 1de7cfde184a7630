#define _GNU_SOURCE
#include "agent/agent.h"

#include "agent/root.h"
#include "agent/text.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { MODULES_BYTES = 64 * 1024, NICE = -10 };

/* The kernel gives init no descriptors where it has no console. */
static void open_standard(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int log = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (log < 0)
        log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    dup2(null, 0);
    dup2(log >= 0 ? log : null, 1);
    dup2(log >= 0 ? log : null, 2);
    if (null > 2)
        close(null);
    if (log > 2)
        close(log);
}

static status load_module(const char *path, struct fault *fault)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
        return errno_status(errno, path, fault);
    return OK;
}

/* In the order in which they need each other; the image knows it. */
static status load_modules(struct fault *fault)
{
    char path[AGENT_PATH_MAX];
    struct span line;
    struct buffer text = buffer_of(MODULES_BYTES);
    status done = text_file_read(&text, AT_FDCWD, "/etc/modules", fault);
    if (done == NOT_FOUND)
        done = OK; /* all that is needed may be built in */
    struct span rest = buffer_span(&text);
    while (done == OK && text_next(&line, &rest, '\n'))
        if (line.length > 0 && span_to_text(path, sizeof path, line))
            done = load_module(path, fault);
    buffer_free(&text);
    return done;
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
        fprintf(stderr, "bulkhead-agent: loopback: %s\n", strerror(errno));
}

status init_guest(struct fault *fault)
{
    static const char name[] = "sandbox";
    umask(0);
    if (mkdir("/dev", 0755) && errno != EEXIST)
        return errno_status(errno, "/dev", fault);
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755") && errno != EBUSY)
        return errno_status(errno, "/dev", fault);
    open_standard();
    TRY(load_modules(fault));
    TRY(root_enter(fault));
    umask(022);
    if (sethostname(name, sizeof name - 1))
        return errno_status(errno, "hostname", fault);
    raise_loopback();
    return OK;
}

void init_protect(bool guest)
{
    const struct rlimit none = {0, 0};
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    setpriority(PRIO_PROCESS, 0, NICE);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t written = write(fd, "-1000", 5);
        (void)written; /* not ours to lower in a container */
        close(fd);
    }
    if (guest)
        return;
    /* where kernels are shared nothing may gain by setuid; orphans come to us */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}
