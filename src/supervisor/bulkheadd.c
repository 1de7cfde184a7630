/* bulkheadd.c: the supervisor's main: from a command line to a running loop. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

static const char *const executable_names[CHILD_KINDS] = {
    "bulkhead-kms", "bulkhead-control", "bulkhead-gateway", "bulkhead-cell",
    "bulkhead-vmm", "bulkhead-runner"};

static status system_fault(const char *what, struct fault *fault)
{
    return FAIL(INTERNAL, fault, "%s: %s", what, strerror(errno));
}

/* The others lie beside this one. */
static status open_executables(struct supervisor *supervisor, struct fault *fault)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    char *slash = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;
    if (!slash)
        return system_fault("/proc/self/exe", fault);
    *slash = '\0';
    _cleanup_close_ int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (int kind = 0; kind < CHILD_KINDS; kind++) {
        int fd = openat(directory, executable_names[kind], O_RDONLY | O_CLOEXEC);
        if (fd < 0 && kind < CHILD_VMM) /* without the others a tier is not there; status says so */
            return system_fault(executable_names[kind], fault);
        supervisor->executables[kind] = fd;
        TRY(jail_filters(&supervisor->filters[kind], (enum jail_role)kind, fault));
    }
    supervisor->sandboxes.agent = openat(directory, "bulkhead-agent", O_RDONLY | O_CLOEXEC);
    supervisor->hostile_executable = openat(directory, "bulkhead-hostile", O_RDONLY | O_CLOEXEC);
    return OK;
}

static status listen_on(int *ret, const struct options_address *address, const char *name,
                        struct fault *fault)
{
    const int on = 1;
    _cleanup_close_ int fd = socket(address->socket.ss_family,
                                    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)
        || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on)
        || bind(fd, (const struct sockaddr *)&address->socket, address->length)
        || listen(fd, SOMAXCONN))
        return FAIL(INTERNAL, fault, "%s %s: %s", name, address->text, strerror(errno));
    *ret = take_fd(&fd);
    return OK;
}

/* SO_REUSEPORT would let a second server of this user share the port in silence: ask without it
 * first. */
static status port_is_free(const struct options_address *address, const char *name,
                           struct fault *fault)
{
    const int on = 1;
    _cleanup_close_ int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)
        || bind(fd, (const struct sockaddr *)&address->socket, address->length))
        return FAIL(CONFLICT, fault, "%s %s: %s", name, address->text, strerror(errno));
    return OK;
}

static status open_listeners(struct supervisor *supervisor, struct fault *fault)
{
    const struct options *options = &supervisor->options;
    TRY(port_is_free(&options->listen, "--listen", fault));
    TRY(port_is_free(&options->ops, "--ops", fault));
    for (uint32_t i = 0; i < options->gateways; i++)
        TRY(listen_on(&supervisor->listeners[i], &options->listen, "--listen", fault));
    return listen_on(&supervisor->ops_listener, &options->ops, "--ops", fault);
}

static status open_stats(struct supervisor *supervisor, struct fault *fault)
{
    supervisor->stats_fd = memfd_create("bulkhead-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    /* sealed: gateways get it, and who could cut it could end all that map it by SIGBUS */
    if (supervisor->stats_fd < 0 || ftruncate(supervisor->stats_fd, sizeof *supervisor->stats)
        || fcntl(supervisor->stats_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        return system_fault("stats page", fault);
    supervisor->stats = mmap(NULL, sizeof *supervisor->stats, PROT_READ | PROT_WRITE, MAP_SHARED,
                             supervisor->stats_fd, 0);
    return supervisor->stats == MAP_FAILED ? system_fault("stats page", fault) : OK;
}

static void on_signal(void *context, uint32_t events)
{
    (void)events;
    struct supervisor *supervisor = context;
    struct signalfd_siginfo info;
    while (read(supervisor->signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo == SIGHUP) {
            tls_reload(supervisor);
            prices_reload(supervisor);
        } else {
            phases_stop(supervisor);
        }
}

static status watch_signals(struct supervisor *supervisor, struct fault *fault)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL))
        return system_fault("signals", fault);
    signal(SIGPIPE, SIG_IGN);
    supervisor->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (supervisor->signals < 0)
        return system_fault("signals", fault);
    return loop_watch(&supervisor->signal_source, supervisor->loop, supervisor->signals, EPOLLIN,
                      on_signal, supervisor, fault);
}

static status open_directories(struct supervisor *supervisor, struct fault *fault)
{
    char path[PATH_MAX + 16];
    const struct options *options = &supervisor->options;
    const uid_t kms = options->uid_base + 1, control = options->uid_base + 2;
    struct stat info;
    TRY(silos_open(&supervisor->silos, options->data, supervisor->shared_id, fault));
    if (fstat(supervisor->silos.data, &info))
        return system_fault("--data", fault);
    supervisor->data_owner = info.st_uid;
    TRY(silos_service(&supervisor->keys_directory, options->keys, kms, supervisor->shared_id,
                      fault));
    TRY(silos_keep_apart(&supervisor->silos, supervisor->keys_directory, fault));
    snprintf(path, sizeof path, "%s/control", options->data);
    TRY(silos_service(&supervisor->control_directory, path, control, supervisor->shared_id,
                      fault));
    snprintf(path, sizeof path, "%s/run/empty", options->data);
    TRY(sandboxes_open(supervisor, fault));
    return jail_empty_root(&supervisor->empty_root, path, fault);
}

static status raise_limits(struct fault *fault)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return system_fault("RLIMIT_NOFILE", fault);
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files))
        return system_fault("RLIMIT_NOFILE", fault);
    struct rlimit core;
    if (getrlimit(RLIMIT_CORE, &core))
        return system_fault("core dumps", fault);
    /* 0 would let the host's handler have a core by a pipe, 1 does not (core(5)). Not undumpable:
     * then /proc of its clones would be shut. */
    core.rlim_cur = core.rlim_max = core.rlim_max > 1 ? 1 : core.rlim_max;
    if (setrlimit(RLIMIT_CORE, &core))
        return system_fault("core dumps", fault);
    return OK;
}

static status prepare(struct supervisor *supervisor, struct fault *fault)
{
    supervisor->shared_id = geteuid() != 0;
    umask(0077);
    TRY(raise_limits(fault));
    TRY(jail_kernel_check(fault));
    if (supervisor->shared_id)
        TRY(jail_become_root(fault));
    TRY(prices_load(supervisor, fault));
    TRY(open_listeners(supervisor, fault));
    TRY(open_directories(supervisor, fault));
    TRY(open_executables(supervisor, fault));
    jail_cgroups_open(&supervisor->cgroups);
    supervisor->null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (supervisor->null < 0)
        return system_fault("/dev/null", fault);
    TRY(open_stats(supervisor, fault));
    TRY(loop_create(&supervisor->loop, fault));
    TRY(watch_signals(supervisor, fault));
    TRY(tls_open(supervisor, fault));
    TRY(admin_listen(supervisor, fault));
    return jail_supervisor(fault);
}

int main(int argc, char **argv)
{
    static struct supervisor supervisor;
    struct fault fault;
    log_open("supervisor", LOG_INFO);
    status result = options_read(&supervisor.options, argc, argv, &fault);
    if (result != OK) {
        fprintf(stderr, "bulkhead serve: %s\n", fault.detail);
        return result == BAD_FIELD ? 2 : 1;
    }
    result = prepare(&supervisor, &fault);
    if (result == OK) {
        services_start(&supervisor);
        cells_refill(&supervisor);
        erased_clear(&supervisor);
        result = loop_run(supervisor.loop, &fault);
    }
    if (result != OK)
        fprintf(stderr, "bulkhead serve: %s\n", fault.detail);
    jail_cgroups_close(&supervisor.cgroups);
    return result == OK && !supervisor.boot_failed ? 0 : 1;
}
