#include "runner/runner.h"

#include "wire/json.h"

static const char *const namespaces[] = {"pid", "mount", "ipc", "uts", "network", "cgroup"};

static const struct {
    const char *destination, *type, *source, *options[7];
} mounts[] = {
    {"/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}},
    {"/dev", "tmpfs", "tmpfs", {"nosuid", "noexec", "mode=755", "size=64k", "nr_inodes=1k"}},
    {"/dev/pts", "devpts", "devpts",
     {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "max=64"}},
    {"/dev/shm", "tmpfs", "tmpfs",
     {"nosuid", "noexec", "nodev", "mode=1777", "size=16m", "nr_inodes=4k"}},
    {"/.bulkhead-agent", "bind", RUNNER_AGENT, {"bind", "ro", "nosuid", "nodev"}},
};

/* What of /proc tells of the host, or would change it. */
static const char *const masked[] = {
    "/proc/acpi", "/proc/asound", "/proc/cmdline", "/proc/config.gz", "/proc/diskstats",
    "/proc/driver", "/proc/interrupts", "/proc/iomem", "/proc/ioports", "/proc/kallsyms",
    "/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/latency_stats", "/proc/mdstat",
    "/proc/modules", "/proc/partitions", "/proc/pressure", "/proc/sched_debug", "/proc/scsi",
    "/proc/swaps", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats",
    "/sys/firmware"};
static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"};

static void put_texts(struct json_writer *writer, const char *name, const char *const *texts,
                      size_t count)
{
    json_open_array(writer, name);
    for (size_t i = 0; i < count && texts[i]; i++)
        json_put_text(writer, NULL, texts[i]);
    json_close_array(writer);
}

static void put_capabilities(struct json_writer *writer)
{
    static const char *const sets[] = {"bounding", "effective", "inheritable", "permitted",
                                       "ambient"};
    json_open_object(writer, "capabilities");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        put_texts(writer, sets[i], NULL, 0);
    json_close_object(writer);
}

/* The stream is descriptor 0, because that is one of the three that runsc of 2022 hands on. */
static void put_process(struct json_writer *writer)
{
    static const char *const arguments[] = {"/.bulkhead-agent", "--stream", "0"};
    static const char *const environment[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"};
    json_open_object(writer, "process");
    json_put_bool(writer, "terminal", false);
    json_open_object(writer, "user");
    json_put_integer(writer, "uid", 0);
    json_put_integer(writer, "gid", 0);
    json_close_object(writer);
    put_texts(writer, "args", arguments, sizeof arguments / sizeof *arguments);
    put_texts(writer, "env", environment, sizeof environment / sizeof *environment);
    json_put_text(writer, "cwd", "/");
    put_capabilities(writer);
    json_put_bool(writer, "noNewPrivileges", true);
    json_close_object(writer);
}

static void put_mounts(struct json_writer *writer)
{
    json_open_array(writer, "mounts");
    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        json_open_object(writer, NULL);
        json_put_text(writer, "destination", mounts[i].destination);
        json_put_text(writer, "type", mounts[i].type);
        json_put_text(writer, "source", mounts[i].source);
        put_texts(writer, "options", mounts[i].options,
                  sizeof mounts[i].options / sizeof *mounts[i].options);
        json_close_object(writer);
    }
    json_close_array(writer);
}

static void put_linux(struct json_writer *writer, enum sandbox_tier tier,
                      const struct sandbox_spec *spec)
{
    json_open_object(writer, "linux");
    json_open_array(writer, "namespaces");
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        json_open_object(writer, NULL);
        json_put_text(writer, "type", namespaces[i]);
        json_close_object(writer);
    }
    json_close_array(writer);
    put_texts(writer, "maskedPaths", masked, sizeof masked / sizeof *masked);
    put_texts(writer, "readonlyPaths", read_only, sizeof read_only / sizeof *read_only);
    if (tier == SANDBOX_CONTAINER) {
        runner_profile(writer);
    } else { /* what gVisor's kernel tells as the memory of its machine */
        json_open_object(writer, "resources");
        json_open_object(writer, "memory");
        json_put_integer(writer, "limit", (int64_t)spec->memory_mib * MIB(1));
        json_close_object(writer);
        json_close_object(writer);
    }
    json_close_object(writer);
}

void runner_config(struct buffer *out, enum sandbox_tier tier, const struct sandbox_spec *spec)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "ociVersion", "1.0.0");
    put_process(&writer);
    json_open_object(&writer, "root");
    json_put_text(&writer, "path", RUNNER_TREE);
    json_put_bool(&writer, "readonly", false);
    json_close_object(&writer);
    json_put_text(&writer, "hostname", "sandbox");
    put_mounts(&writer);
    put_linux(&writer, tier, spec);
    json_close_object(&writer);
}
