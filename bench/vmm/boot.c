/* boot.c: boots a kernel in the monitor's machine, unjailed, and says where the time went: for
 * development, and beside a peer in bench/vmm.
 *
 *   bench-vmm-boot --kernel VMLINUX [--initramfs FILE] [--append TEXT] [--memory MIB] [--vcpus N]
 *                  [--root IMAGE] [--scratch IMAGE] [--disk MIB] [--vsock]
 *                  [--console] [--preload] [--huge] [--seconds N] [--until-mark N]
 *
 * The guest's console goes to stdout, the figures as one line of JSON to stderr: microseconds
 * since the start of this program. A guest marks a moment by writing a byte to port 0x3F0; that its
 * agent dialled is "dialled", and ends the run with --until-dialled. --root, --disk (scratch is
 * what it holds at first; writes go to a nameless file) and --vsock add a sandbox's devices. The
 * exit status is 0 when the guest switched itself off or the mark was reached, 3 when it faulted,
 * else 1. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "vmm/machine.h"
#include "vmm/virtio/devices.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MARK_PORT = 0x3F0, MARKS_MAX = 16, MIB_BYTES = 1 << 20 };

struct boot {
    struct machine_config config;
    struct machine_source source;
    struct loop *loop;
    struct machine *machine;
    struct loop_timer deadline;
    int64_t begun, seconds, marks[MARKS_MAX];
    int64_t dialled;
    int until_mark, root, scratch, agent, theirs;
    uint64_t disk_bytes;
    bool vsock, until_dialled, preload;
    enum sandbox_end end;
    char append[1024], detail[200];
};

static void on_port(void *context, uint16_t port, uint32_t value)
{
    struct boot *boot = context;
    if (port != MARK_PORT || value >= MARKS_MAX || boot->marks[value])
        return;
    boot->marks[value] = clock_monotonic_us();
    if ((int)value == boot->until_mark)
        machine_end(boot->machine, SANDBOX_SHUTDOWN, "the mark was reached");
}

static void on_console(void *context, uint8_t byte)
{
    (void)context;
    putchar(byte);
    if (byte == '\n')
        fflush(stdout);
}

static void on_end(void *context, enum sandbox_end end, const char *detail)
{
    struct boot *boot = context;
    boot->end = end;
    snprintf(boot->detail, sizeof boot->detail, "%s", detail);
    loop_stop(boot->loop);
}

static void on_deadline(void *context)
{
    struct boot *boot = context;
    machine_end(boot->machine, SANDBOX_LIFETIME, "its time was over");
}

static void on_dialled(void *context)
{
    struct boot *boot = context;
    boot->dialled = clock_monotonic_us();
    if (boot->until_dialled)
        machine_end(boot->machine, SANDBOX_SHUTDOWN, "the agent dialled");
}

static void print_us(const char *name, int64_t at, int64_t begun)
{
    if (at)
        fprintf(stderr, ", \"%s_us\": %lld", name, (long long)(at - begun));
}

/* Private memory of this process beyond the guest's; its program's pages are everybody's. */
static long private_kib(const struct boot *boot)
{
    const struct guest_memory *memory = machine_memory(boot->machine);
    uintptr_t guest = (uintptr_t)memory->regions[0].base;
    FILE *smaps = fopen("/proc/self/smaps", "re");
    char line[512], *end;
    long total = 0;
    bool ours = true;
    while (smaps && fgets(line, sizeof line, smaps)) {
        uintptr_t from = strtoull(line, &end, 16);
        if (*end == '-') /* the head of a mapping */
            ours = from < guest || from - guest >= memory->reserved;
        else if (ours && strncmp(line, "Anonymous:", 10) == 0)
            total += strtol(strchr(line, ':') + 1, NULL, 10);
    }
    if (smaps)
        fclose(smaps);
    return total;
}

static void report(const struct boot *boot)
{
    const struct machine_timeline *times = machine_timeline(boot->machine);
    fprintf(stderr, "{\"end\": \"%s\", \"detail\": \"%s\"", sandbox_end_name(boot->end),
            boot->detail);
    print_us("opened", times->opened, boot->begun);
    print_us("preloaded", times->preloaded, boot->begun);
    print_us("built", times->built, boot->begun);
    print_us("loaded", times->loaded, boot->begun);
    print_us("started", times->started, boot->begun);
    print_us("entered", times->entered, boot->begun);
    print_us("first_exit", times->first_exit, boot->begun);
    print_us("dialled", boot->dialled, boot->begun);
    for (int i = 0; i < MARKS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "mark_%d", i);
        print_us(name, boot->marks[i], boot->begun);
    }
    print_us("ended", times->ended, boot->begun);
    fprintf(stderr, ", \"private_kib\": %ld}\n", private_kib(boot));
}

static int open_or_exit(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    perror(path);
    exit(2);
}

static long number(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text && !*end && value >= 0)
        return value;
    fprintf(stderr, "not a number: %s\n", text);
    exit(2);
}

static const struct option options[] = {
    {"kernel", required_argument, NULL, 'k'}, {"initramfs", required_argument, NULL, 'i'},
    {"append", required_argument, NULL, 'a'}, {"memory", required_argument, NULL, 'm'},
    {"vcpus", required_argument, NULL, 'v'},  {"console", no_argument, NULL, 'c'},
    {"preload", no_argument, NULL, 'p'},      {"huge", no_argument, NULL, 'h'},
    {"seconds", required_argument, NULL, 's'}, {"until-mark", required_argument, NULL, 'u'},
    {"root", required_argument, NULL, 'r'},   {"scratch", required_argument, NULL, 't'},
    {"disk", required_argument, NULL, 'd'},   {"vsock", no_argument, NULL, 'o'},
    {"until-dialled", no_argument, NULL, 'l'}, {"agent-fd", required_argument, NULL, 'f'}, {0}};

static void parse(struct boot *boot, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'k': boot->source.kernel = open_or_exit(optarg); break;
        case 'i': boot->source.initramfs = open_or_exit(optarg); break;
        case 'a': snprintf(boot->append, sizeof boot->append, "%s", optarg); break;
        case 'm': boot->config.memory_bytes = (uint64_t)number(optarg) * MIB_BYTES; break;
        case 'v': boot->config.vcpus = (uint32_t)number(optarg); break;
        case 'c': boot->config.console = true; break;
        case 'p': boot->preload = true; break;
        case 'h': boot->config.huge_pages = true; break;
        case 's': boot->seconds = number(optarg); break;
        case 'u': boot->until_mark = (int)number(optarg); break;
        case 'r': boot->root = open_or_exit(optarg); break;
        case 't': boot->scratch = open_or_exit(optarg); break;
        case 'd': boot->disk_bytes = (uint64_t)number(optarg) * MIB_BYTES; break;
        case 'o': boot->vsock = true; break;
        case 'l': boot->vsock = boot->until_dialled = true; break;
        case 'f': boot->theirs = (int)number(optarg); boot->vsock = true; break;
        default: exit(2);
        }
    }
    if (boot->source.kernel >= 0)
        return;
    fprintf(stderr, "--kernel is needed\n");
    exit(2);
}

static struct device_place next_place(struct boot *boot)
{
    return (struct device_place){.host = machine_host(boot->machine), .loop = boot->loop,
                                 .line = machine_next_line(boot->machine)};
}

static status add_disk(struct boot *boot, const struct block_config *config, struct fault *fault)
{
    struct device_place place = next_place(boot);
    struct virtio_device *device;
    TRY(block_create(&device, config, &place, fault));
    return machine_add(boot->machine, device, fault);
}

static status add_disks(struct boot *boot, struct fault *fault)
{
    struct stat file;
    if (boot->root >= 0 && fstat(boot->root, &file) == 0)
        TRY(add_disk(boot, &(struct block_config){.base = boot->root, .overlay = -1,
                                                  .serial = "root",
                                                  .bytes = (uint64_t)file.st_size}, fault));
    if (!boot->disk_bytes)
        return OK;
    int overlay = memfd_create("overlay", MFD_CLOEXEC);
    return add_disk(boot, &(struct block_config){.base = boot->scratch, .overlay = overlay,
                                                 .bytes = boot->disk_bytes, .serial = "scratch"},
                    fault);
}

static status add_sandbox_devices(struct boot *boot, struct fault *fault)
{
    const struct vsock_listener listener = {.accepted = on_dialled, .context = boot};
    struct virtio_device *vsock, *device;
    int ends[2];
    struct device_place place = next_place(boot);
    TRY(vsock_create(&vsock, SANDBOX_GUEST_CID, &place, fault));
    TRY(machine_add(boot->machine, vsock, fault));
    if (boot->theirs < 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
            return FAIL(INTERNAL, fault, "socketpair");
        boot->agent = ends[0];
        boot->theirs = ends[1];
    }
    TRY(vsock_stream(vsock, boot->theirs, SANDBOX_AGENT_PORT, VMM_STREAM_ACCEPT, &listener, fault));
    place = next_place(boot);
    TRY(rng_create(&device, &place, fault));
    TRY(machine_add(boot->machine, device, fault));
    place = next_place(boot);
    TRY(balloon_create(&device, &place, fault));
    return machine_add(boot->machine, device, fault);
}

static status run(struct boot *boot, struct fault *fault)
{
    const struct machine_hooks hooks = {.ended = on_end, .port_written = on_port,
                                        .console_written = on_console, .context = boot};
    TRY(loop_create(&boot->loop, fault));
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return FAIL(UNAVAILABLE, fault, "/dev/kvm cannot be opened");
    TRY(machine_open(&boot->machine, kvm, fault));
    if (boot->preload)
        TRY(machine_preload(boot->machine, boot->source.kernel, boot->source.initramfs, fault));
    TRY(machine_build(boot->machine, &boot->config, boot->loop, fault));
    TRY(add_disks(boot, fault));
    if (boot->vsock)
        TRY(add_sandbox_devices(boot, fault));
    TRY(machine_load(boot->machine, &boot->source, fault));
    TRY(machine_start(boot->machine, &hooks, fault));
    TRY(loop_timer_start(boot->loop, &boot->deadline, boot->seconds * 1000000, on_deadline, boot,
                         fault));
    machine_go(boot->machine);
    return loop_run(boot->loop, fault);
}

int main(int argc, char **argv)
{
    static struct boot boot = {
        .config = {.memory_bytes = (uint64_t)128 * MIB_BYTES, .vcpus = 1},
        .source = {.kernel = -1, .initramfs = -1}, .seconds = 60, .until_mark = -1,
        .root = -1, .scratch = -1, .agent = -1, .theirs = -1,
        .append = "console=ttyS0 reboot=k panic=-1"};
    struct fault fault;
    boot.begun = clock_monotonic_us();
    parse(&boot, argc, argv);
    boot.source.command_line = boot.append;
    if (run(&boot, &fault) != OK) {
        fprintf(stderr, "bench-vmm-boot: %s\n", fault.detail);
        return 1;
    }
    fflush(stdout);
    report(&boot);
    machine_free(boot.machine);
    loop_free(boot.loop);
    return boot.end == SANDBOX_SHUTDOWN ? 0 : boot.end == SANDBOX_FAULTED ? 3 : 1;
}
