/* sandboxes.h: one sandbox inside the supervisor, and the parts it is made of. For sandboxes.c and
 * the sandbox_*.c beside it.
 *
 * A sandbox waits until it is known what works here and until a blank monitor is there; then it has
 * the monitor, a slot (a uid of its own) and descriptors; the monitor boots, runs and ends. Its
 * slot is free again when the monitor has been reaped. Nothing of it has a name on disk. */
#pragma once

#include "supervisor/supervisor.h"

enum sandbox_at { SANDBOX_WAITING, SANDBOX_BOOTING, SANDBOX_RUNNING };

#define SANDBOX_NO_SLOT UINT32_MAX
#define SANDBOX_FIRST_IMAGE "base" /* that is tried, and loaded ahead, before anybody asks */

enum { SANDBOX_UID_OFFSET = 100 }; /* of the first slot's uid, above uid_base */
static_assert(SANDBOX_UID_OFFSET + SANDBOXES_MAX <= 1000, "tenants' uids begin there");

struct sandbox {
    struct supervisor *supervisor;
    struct sandbox *next;
    struct child *monitor;  /* NULL while it waits */
    struct waiter *stops;   /* control's SANDBOX_STOPs */
    uint64_t id;
    int64_t begun_us, entered_us, dialled_us; /* begun: monotonic; the others: since VMM_START */
    struct loop_timer timer; /* while it waits; then its lifetime */
    struct loop_timer cpu;
    struct loop_source *line; /* its stream, while it is watched */
    struct loop_timer cut;    /* who runs it has hung up: until then it may end by itself */
    uint64_t cpu_us, peak_kib;
    uint32_t request;       /* of control, while it is not answered; 0: answered, or nobody asks */
    uint32_t slot;
    int stream;             /* only ever looked at: whether who runs it is there */
    int console;            /* until the monitor has it; -1 */
    int overlay;            /* -1: no disk; looked at for what is used of it */
    enum sandbox_at at;
    enum sandbox_tier tier; /* that runs it */
    enum child_kind wants;  /* while it waits for nothing but that; CHILD_KINDS: for more */
    enum sandbox_end end;   /* decided by us; 0: not */
    enum sandbox_end said;  /* what the monitor said; 0: nothing */
    status code;            /* what control is told where it never ran */
    bool stopping;          /* its monitor was asked to end the guest, and has a moment */
    bool told;              /* control knows its id: it is owed a SANDBOX_GONE */
    bool probe;             /* it only boots to find out whether that works */
    uint8_t tenant[TENANT_ID_BYTES];
    char detail[SANDBOX_REASON_TEXT];
    struct sandbox_spec spec;
};

/* ---- sandboxes.c ---- */

/* NULL: no memory. On the list, waiting; takes the stream. */
struct sandbox *sandbox_new(struct supervisor *supervisor, const struct sandbox_spec *spec,
                            int stream);
/* Ends it: what has not run is gone at once, for the other the exit of its monitor does the rest.
 * The first end counts. code: for who still waits to hear that it runs. */
void sandbox_end(struct sandbox *sandbox, enum sandbox_end end, status code, const char *detail);
/* Its monitor is reaped, or it never had one: tells, and frees it. */
void sandbox_gone(struct sandbox *sandbox);
void sandbox_runs(struct sandbox *sandbox); /* its agent has dialled */
/* At the end of this turn: whoever waits is looked at. */
void sandboxes_advance_later(struct supervisor *supervisor);
void sandboxes_count(struct supervisor *supervisor);

/* ---- sandbox_monitor.c ---- */

/* A blank, or NULL: then one is on its way, or starting one failed (said in the log). */
struct child *monitor_take(const struct sandbox *sandbox);
/* Ends blanks that have loaded another kernel than this image has now. */
void monitors_renew(struct supervisor *supervisor, const char *image);
/* Gives it the sandbox: from here on the end of the monitor is the end of the sandbox. */
void monitor_assume(struct child *monitor, struct sandbox *sandbox);
/* Asks it to end its guest by itself, where anything is gained by that: the guest's last words on
 * its console. False: there is nothing to wait for. Once. */
bool monitor_stop(struct child *monitor);
/* Blank, or not yet blank. */
uint32_t monitors_coming(const struct supervisor *supervisor, enum child_kind kind);

/* ---- sandbox_files.c ---- */

struct image_files {
    int kernel, initramfs, root, scratch; /* read-only */
};

/* DATA/images and DATA/sandboxes, made where they are absent. */
MUST_CHECK status images_open(int *ret_images, int *ret_sandboxes,
                              const struct supervisor *supervisor, struct fault *fault);
/* DATA/images/NAME. NOT_FOUND: no such image. FORBIDDEN_POLICY: something on the way to a file, or
 * the file, may be changed by others than root and the owner of DATA, or is a link. */
MUST_CHECK status image_open(struct image_files *ret, const struct supervisor *supervisor,
                             const char *name, struct fault *fault);
void image_close(struct image_files *files);
/* BAD_FIELD: a microVM of so little memory would not come up with this kernel. */
MUST_CHECK status image_fits(const struct image_files *files, uint32_t memory_mib,
                             struct fault *fault);
/* Other for each build of an image: what was found out with one does not hold for another. */
MUST_CHECK status image_identity(char text[IMAGE_IDENTITY_TEXT],
                                 const struct supervisor *supervisor, const char *name,
                                 struct fault *fault);
/* The image's root as a directory: a detached mount, read-only. */
MUST_CHECK status image_tree(int *ret, const struct supervisor *supervisor, const char *name,
                             struct fault *fault);
/* An empty file without a name, of that owner. */
MUST_CHECK status overlay_make(int *ret, const struct supervisor *supervisor, uid_t owner,
                               struct fault *fault);

/* ---- sandbox_tap.c ---- */

/* An interface in the network namespace of that process, up, without an address, and no other way
 * out of there. Non-blocking, plain frames. It goes when the descriptor is closed. */
MUST_CHECK status tap_make(int *ret, const struct jail_child *process, struct fault *fault);

/* ---- sandbox_bounds.c ---- */

/* cgroup and rlimits of the monitor for this sandbox. */
MUST_CHECK status bounds_set(const struct child *monitor, const struct sandbox_spec *spec,
                             struct fault *fault);
/* From here on its CPU time is looked at, by the kernel's exact account. A runner looks itself. */
MUST_CHECK status bounds_watch(struct sandbox *sandbox, struct fault *fault);
/* Whether the kernel killed it for its memory. */
bool bounds_memory_was_over(const struct child *monitor);

/* The same for a runner, whose rlimits are its own doing. */
MUST_CHECK status bounds_set_runner(const struct child *runner, const struct sandbox *sandbox,
                                    struct fault *fault);

/* ---- sandbox_runner.c ---- */

/* As tier_works; begins a probe where nothing is known. */
MUST_CHECK status runner_works(struct supervisor *supervisor, enum sandbox_tier tier,
                               const char *image, struct fault *fault);
/* The same without beginning one; NOT_FOUND: nothing is known. */
MUST_CHECK status runner_standing(const struct supervisor *supervisor, enum sandbox_tier tier,
                                  struct fault *fault);
void runner_probed(struct sandbox *probe); /* it has ended */
/* What it makes its root from. */
MUST_CHECK status runner_send_files(struct child *runner, const struct sandbox *sandbox,
                                    struct fault *fault);

/* ---- sandbox_tiers.c ---- */

/* OK; AGAIN: it is being found out; FORBIDDEN_POLICY: no, with the reason. */
MUST_CHECK status tier_works(struct supervisor *supervisor, enum sandbox_tier tier,
                             const char *image, struct fault *fault);
/* The strongest that works and is no weaker than weakest; the same results. */
MUST_CHECK status tier_choose(enum sandbox_tier *ret, struct supervisor *supervisor,
                              const struct sandbox_spec *spec, struct fault *fault);

/* ---- sandbox_probe.c ---- */

/* /dev/kvm, opened for one monitor. UNAVAILABLE with the reason as status shows it. */
MUST_CHECK status kvm_open(int *ret, struct fault *fault);
/* As tier_works; begins a probe where nothing is known. */
MUST_CHECK status microvm_works(struct supervisor *supervisor, const char *image,
                                struct fault *fault);
/* The same without beginning one; NOT_FOUND: nothing is known. */
MUST_CHECK status microvm_standing(const struct supervisor *supervisor, struct fault *fault);
void microvm_probed(struct sandbox *probe); /* it has ended */

/* ---- sandbox_verdict.c: what a probe found, in DATA/run, for as long as the host runs ---- */

void verdict_keep(const struct supervisor *supervisor);
/* Only what was found since this kernel booted. */
bool verdict_recall(struct microvm *ret, const struct supervisor *supervisor);
