/* runner.h: the weaker tiers. bulkhead-runner is to a container what bulkhead-vmm is to a guest: it
 * speaks the same messages with the supervisor (docs/protocols.md), in namespaces and under an id
 * that no other sandbox has, and hands the work to Debian's crun or runsc.
 *
 * It never runs as root of the host, and nothing that it makes has a name outside: its root is a
 * RAM disk of its own, so that killing it, pid 1 of its namespace, leaves nothing. */
#pragma once

#include "base/buffer.h"
#include "base/limits.h"
#include "wire/sandbox.h"

#include <sys/types.h>

enum { RUNNER_CONFIG_MAX = KIB(64), RUNNER_DETAIL_TEXT = 120 };

/* The runtime's configuration (OCI 1.0): no capability, no network, limits, and for a container,
 * whose calls reach the host's kernel, the allow-list of profile.h. */
void runner_config(struct buffer *out, enum sandbox_tier tier, const struct sandbox_spec *spec);

/* The calls a container may make: the "seccomp" member. */
struct json_writer;
void runner_profile(struct json_writer *writer);

/* Where things lie in the runner's own root. */
#define RUNNER_RUNTIME "/runtime"
#define RUNNER_BUNDLE "/bundle"
#define RUNNER_TREE "/root"
#define RUNNER_AGENT "/agent"

/* Makes that root and enters it: a copy of the image's tree, private and bounded by spec's disk,
 * the runtime with its libraries, a few devices. Then the host's files are out of sight.
 * UNAVAILABLE naming the step that this host refuses. */
MUST_CHECK status runner_root(enum sandbox_tier tier, const struct sandbox_spec *spec, int tree,
                              int agent, struct fault *fault);

/* Copies what is in the directory: files, folders, links; nothing set-uid, no device.
 * OUT_OF_SPACE, TOO_LARGE for a tree that is too deep or has too many entries. */
MUST_CHECK status runner_copy_tree(int to, int from, struct fault *fault);
MUST_CHECK status runner_copy_file(int to_directory, const char *name, int from, mode_t mode,
                                   struct fault *fault);

struct runner_used {
    uint64_t memory_bytes; /* of all processes and of the private tree */
    uint64_t cpu_us;
    uint64_t tasks; /* threads, of all of them */
};

/* By /proc of the runner's pid namespace: what bounds a container where there is no cgroup. What
 * ends between two looks is seen in its parent's account. */
void runner_look(struct runner_used *ret, enum sandbox_tier tier);
