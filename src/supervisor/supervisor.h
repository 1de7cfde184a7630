/* supervisor.h: the one process with privileges, and all that it knows: descriptors and pids.
 *
 * It starts every other process in its jail, reads back from the kernel that the jail holds, makes
 * every channel, and restarts what dies. It never sees a byte of a tenant: messages that concern a
 * tenant's content pass between the others. What each child may ask of it stands in the permit
 * tables of permits.c; everything else ends that child. */
#pragma once

#include "base/loop.h"
#include "base/stats.h"
#include "jail/cgroup.h"
#include "jail/policy.h"
#include "jail/spawn.h"
#include "jail/verify.h"
#include "supervisor/logs.h"
#include "supervisor/options.h"
#include "supervisor/silos.h"
#include "wire/messages.h"
#include "wire/sandbox.h"
#include "wire/usage.h"

enum child_kind { CHILD_KMS, CHILD_CONTROL, CHILD_GATEWAY, CHILD_CELL, CHILD_VMM, CHILD_RUNNER,
                  CHILD_KINDS };

enum child_state {
    CHILD_ABSENT,   /* a service between death and restart */
    CHILD_STARTING, /* spawned; a cell, a monitor: not yet blank */
    CHILD_BLANK,    /* cells: waiting for a tenant; monitors: for a sandbox */
    CHILD_CLOSING,  /* cells, monitors: told which, closing its jail */
    CHILD_JAILED,   /* the jail was read back and holds; monitors: told to run the guest */
    CHILD_SERVING,  /* monitors: the guest's agent has dialled */
    CHILD_PARKING,  /* cells: told to park; services: told to stop; monitors: the guest ended */
};

struct supervisor;

/* A wake or a stop that control asked for and that is not answered yet. */
struct waiter {
    uint32_t request, gateway;
    struct waiter *next;
};

/* What the kernel says of a cell since it has a tenant, and how much of it control was told. */
struct cell_usage {
    struct jail_used used;
    uint64_t told_cpu_us;
    int64_t told_us; /* monotonic; 0: it has no tenant */
    uint32_t allowance; /* reports that it may still make */
    int64_t allowance_us;
    struct loop_timer timer;
};

enum { CELL_RESTORED_MAX = 400 }; /* bytes of CELL_RESTORED */

struct child {
    struct supervisor *supervisor;
    enum child_kind kind;
    uint32_t index; /* of gateways; of cells, monitors: a running number, for the cgroup's name */
    enum child_state state;
    struct jail_child jail;
    struct jail_report report;
    int channel; /* our end */
    struct loop_source *channel_source, *exit_source;
    struct ipc_outbox *outbox;
    struct child_log log;
    struct loop_timer timer; /* restart back-off, start and stop deadlines */
    uint32_t restarts, delay_ms;
    uint32_t tls_sent; /* gateways: the generation of the newest pair that it was sent */
    int64_t started_us;

    /* cells only */
    uint8_t tenant[TENANT_ID_BYTES];
    uint32_t uid;
    int kms_end; /* the kms's end of the channel, until the jail was verified */
    struct waiter *waiters;
    struct waiter *stops; /* control's CELL_STOPs, waiting for the end */
    bool stop_wanted, idle, parked, refused, hostile; /* idle, parked: it has said so */
    bool restoring;           /* it only makes a silo from backups */
    uint32_t restore_request; /* of control, answered at its end; 0: who asked is gone */
    uint32_t restored_length; /* 0: it has not said that it is done */
    uint8_t restored[CELL_RESTORED_MAX]; /* what it said then: for control, not for us */
    status refusal;
    char detail[200];
    int64_t next_expiry_us;
    uint64_t bytes, damaged;
    int64_t wake_started_us, damage_logged_us;
    struct cell_usage usage;
    struct child *next; /* of the list it is on */

    struct sandbox *sandbox; /* monitors only: what it runs; NULL: it is blank */
    char image[160];         /* identity of the one whose kernel it has loaded; "": none yet */
};

/* Sealed copies of certificate chain and private key; generation 0: none, and both -1. */
struct tls_pair {
    int certificate, key;
    uint32_t generation;
};

struct tls {
    struct tls_pair accepted; /* a gateway says that it fits: what gateways start with */
    struct tls_pair offered;  /* sent, not answered yet */
    uint32_t generations, rotations;
    uint8_t *ticket_keys; /* TLS_TICKET_KEYS_MAX of them, in secret memory */
    uint16_t ticket_count;
    char fingerprint[65]; /* of the accepted one, and its end of validity */
    int64_t expires_s;
    struct loop_timer rotation;
};

/* Why a tenant's cell could not wake: shown by status until it wakes. */
struct refusal {
    uint8_t tenant[TENANT_ID_BYTES];
    int64_t wall_us; /* 0: an empty place */
    status code;
    char detail[200];
};

enum { REFUSALS_KEPT = 64, BOOT_FAILURES_MAX = 5 };
enum { CELL_POSTURE_MAX = 2 * CHARTER_MAX + KIB(2) }; /* bytes of what a cell is woken with */

/* Whether microVMs work here: sandbox_probe.c. */
enum microvm_state { MICROVM_UNKNOWN, MICROVM_PROBING, MICROVM_WORKS, MICROVM_BROKEN };

/* Whether a weaker tier works here: sandbox_runner.c. */
struct runner_standing {
    enum microvm_state state;
    int probe_end;                    /* ours, of the probe's stream; -1 */
    int64_t found_us;                 /* wall */
    int64_t again_us;                 /* monotonic: BROKEN is believed until then */
    char reason[120];                 /* "" while it works */
};

enum { SANDBOX_REASON_TEXT = 120, IMAGE_IDENTITY_TEXT = 160 };

struct microvm {
    enum microvm_state state;
    int probe_end;                    /* ours, of the probe's stream; -1 */
    struct sandbox *probe;            /* the one that is booting to find out */
    int64_t found_us;                 /* wall */
    int64_t again_us;                 /* monotonic: BROKEN is believed until then; 0: for good */
    char image[IMAGE_IDENTITY_TEXT];  /* that it was found with */
    char reason[SANDBOX_REASON_TEXT]; /* "" while it works */
};

struct sandboxes {
    struct sandbox *list;   /* each from its start to its end */
    struct child *monitors; /* blank and at work */
    struct owed *owed;      /* ends that no control was there to hear of; SANDBOXES_MAX at most */
    uint64_t next_id;
    uint32_t monitors_made, count;
    int directory, images; /* DATA/sandboxes, DATA/images */
    int images_changed;    /* inotify */
    struct loop_source *images_source;
    struct loop_timer advance_timer, refill_timer, look_timer;
    struct microvm microvm;
    struct runner_standing runners[SANDBOX_MICROVM]; /* by tier */
    int agent; /* the program of containers' first process; -1: not installed */
    bool slots[SANDBOXES_MAX]; /* taken: a uid of its own each */
};

enum { PHASE_BOOT, PHASE_RUN, PHASE_STOP_GATEWAYS, PHASE_STOP_CELLS, PHASE_STOP_CONTROL,
       PHASE_STOP_KMS };

enum { OPERATORS_KEPT = 32 };

struct supervisor {
    struct options options;
    struct loop *loop;
    struct silos silos;
    struct jail_cgroups cgroups;
    bool shared_id;
    int phase;
    int null, empty_root, executables[CHILD_KINDS], hostile_executable, filters[CHILD_KINDS];
    int keys_directory, control_directory;
    int listeners[GATEWAYS_MAX], ops_listener;
    int stats_fd;
    struct stats_page *stats;
    struct child services[2 + GATEWAYS_MAX]; /* kms, control, gateways */
    struct child *cells;                     /* a list: blanks, awake, parking, hostile */
    uint32_t cells_made, blanks;
    struct loop_timer refill_timer, phase_timer, clear_timer;
    uint8_t public_keys[64]; /* platform, issuer: as the kms said at its first start */
    bool keys_known, announced, boot_failed;
    uint32_t boot_failures;
    struct refusal refusals[REFUSALS_KEPT]; /* the newest of each tenant; the oldest makes room */
    int admin_listener;
    int operators[OPERATORS_KEPT]; /* pidfds of who connected to it, the newest; 0: none */
    uint32_t operators_next;
    struct loop_source *admin_source, *signal_source;
    int signals;
    uid_t data_owner;
    struct prove *prove; /* the battery at work, if any */
    struct tls tls;
    struct prices prices; /* of the price file in force */
    struct sandboxes sandboxes;
};

/* Every event names what happened to the child; the tables in child.c and permits.c call these. */

/* child.c: spawning, reading back, dying */
MUST_CHECK status child_spawn(struct child *child, int executable, struct fault *fault);
void child_fatal(struct child *child, const char *why); /* kills; the exit event does the rest */
/* A message that must arrive: a full or broken channel ends the child. */
void child_send(struct child *child, uint32_t type, uint32_t id, struct span body, const int *fds,
                uint32_t fd_count);
/* id 0: who asked is gone. */
void child_reply(struct child *child, uint32_t id, status code, const char *detail);
uid_t child_uid(const struct child *child);
const char *child_name(char text[24], const struct child *child);
void child_forget(struct child *child); /* closes all that belongs to an ended child */

/* services.c */
struct child *service_kms(struct supervisor *supervisor);
struct child *service_control(struct supervisor *supervisor);
struct child *service_gateway(struct supervisor *supervisor, uint32_t index); /* NULL: no such */
void services_start(struct supervisor *supervisor); /* the kms; the others follow its READY */
void service_ended(struct child *child, int exit_code);
void service_ready(struct child *child, const struct ipc_message *message);
/* A pair whose ends go to two children as CHANNEL messages. */
void services_connect(struct supervisor *supervisor, struct child *one, uint8_t kind_for_one,
                      uint32_t index_for_one, struct child *other, uint8_t kind_for_other,
                      uint32_t index_for_other);

/* cells.c */
void cells_refill(struct supervisor *supervisor);
/* erased.c: at the start, and when a large silo was set aside. */
void erased_clear(struct supervisor *supervisor);
void cells_count(struct supervisor *supervisor); /* for /metrics; after each change of a state */
struct child *cells_find(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES]);
void cells_wake(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES], uint32_t uid,
                struct span posture, uint32_t gateway, uint32_t request);
/* A blank makes the tenant's silo from backups, in SILO.new. Takes neither descriptor. */
void cells_restore(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES],
                   uint32_t uid, int backups, uint32_t request);
void cells_stop(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES],
                enum cell_stop_how how, uint32_t request);
void cell_ended(struct child *cell, int exit_code);
void cell_verified(struct child *cell);
void cell_ready(struct child *cell);
/* It asks to be parked. From CELL_PARK on it gets no relay: who wants one waits for its end. */
MUST_CHECK status cell_idle(struct child *cell, struct fault *fault);
void cell_parked(struct child *cell); /* it has said so, and ends */
void cells_kms_renewed(struct supervisor *supervisor);
bool cells_park_all(struct supervisor *supervisor); /* false when none is left */
/* Gives a blank its tenant; for wakes and for the battery. */
MUST_CHECK status cell_assume(struct child *cell, const uint8_t tenant[TENANT_ID_BYTES],
                              uint32_t uid, struct span posture, struct fault *fault);
struct child *cell_spawn(struct supervisor *supervisor, bool hostile);
void cell_attach(struct child *cell, uint32_t gateway); /* a relay between the two */
void cells_forget_requests(struct supervisor *supervisor); /* control, which asked, has ended */
void cell_answer_waiters(struct child *cell, status code, const char *detail);

/* sandboxes.c: from SANDBOX_START to SANDBOX_GONE */
MUST_CHECK status sandboxes_open(struct supervisor *supervisor, struct fault *fault);
/* Takes both; console -1: none. */
void sandboxes_start(struct supervisor *supervisor, uint32_t request,
                     const uint8_t tenant[TENANT_ID_BYTES], const struct sandbox_spec *spec,
                     int stream, int console);
void sandboxes_stop(struct supervisor *supervisor, uint64_t id, uint32_t request);
/* Ends all of them, blank monitors too; false when none is left. */
bool sandboxes_stop_all(struct supervisor *supervisor, const char *why);
bool sandboxes_any(const struct supervisor *supervisor);
/* control, which asked for them and counts them, has ended: they end. */
void sandboxes_forget_requests(struct supervisor *supervisor);
/* A control is there: it hears of those that ended while there was none, for the ledger. */
void sandboxes_tell_owed(struct supervisor *supervisor);
/* sandbox_monitor.c */
void monitors_refill(struct supervisor *supervisor);
void monitor_blank(struct child *monitor);
void monitor_verified(struct child *monitor);
uint32_t monitor_threads(const struct child *monitor); /* that one with this sandbox has */
MUST_CHECK status monitor_running(struct child *monitor, uint64_t entered_us, uint64_t dialled_us,
                                  struct fault *fault);
/* BAD_REQUEST for an end that is not the monitor's to know. */
MUST_CHECK status monitor_guest_ended(struct child *monitor, uint8_t end, const char *detail,
                                      struct fault *fault);
/* A runner adds up what its whole tree has used. */
MUST_CHECK status monitor_used(struct child *runner, uint64_t cpu_us, uint64_t peak_kib,
                               struct fault *fault);
void monitor_look(struct child *monitor); /* at what it has used; also when it has ended */
void monitor_ended(struct child *monitor, int exit_code);
/* sandbox_probe.c */
void microvm_begin(struct supervisor *supervisor); /* once, when the node is ready */
/* sandbox_report.c */
void sandboxes_report(struct json_writer *writer, struct supervisor *supervisor);

static inline bool child_runs_sandbox(const struct child *child)
{
    return child->kind == CHILD_VMM || child->kind == CHILD_RUNNER;
}

/* permits.c: the tables of what each kind of child may say in which state */
void permits_handle(struct child *child, struct ipc_message *message);

/* admin.c, report.c, prove.c */
/* Does the process of an operator live that connected? */
bool admin_operator_is_there(const struct supervisor *supervisor);
MUST_CHECK status admin_listen(struct supervisor *supervisor, struct fault *fault);
void report_status(struct child *control, uint32_t request);
void report_jail(struct json_writer *writer, struct child *child); /* as the kernel says now */
void prove_start(struct supervisor *supervisor, uint32_t request, struct cursor *body,
                 struct ipc_message *message);
void prove_advance(struct child *cell); /* a hostile cell is blank, or its jail was verified */
void prove_cell_ended(struct child *cell, int exit_code);
void prove_forget_request(struct supervisor *supervisor);

/* tls.c: certificate, key and ticket keys */
/* BAD_FIELD names the option and its file. Does nothing when no TLS is spoken. */
MUST_CHECK status tls_open(struct supervisor *supervisor, struct fault *fault);
void tls_start_gateway(struct child *gateway); /* straight after its START */
void tls_reload(struct supervisor *supervisor); /* SIGHUP: both files anew, and a new ticket key */
MUST_CHECK status tls_answered(struct child *gateway, const struct ipc_message *message,
                               struct fault *fault);
enum { TLS_TEXT_SIZE = 160 };
void tls_text(char text[TLS_TEXT_SIZE], const struct supervisor *supervisor); /* for status */

/* usage.c */
void usage_begin(struct child *cell); /* it has a tenant from here on */
void usage_look(struct child *cell);  /* the last time before it is reaped */
/* What the kernel counted since the last time, with what the cell counted, to control. */
void usage_tell(struct child *cell, struct span records);
MUST_CHECK status usage_report(struct child *cell, struct span records, struct fault *fault);

/* prices.c */
MUST_CHECK status prices_load(struct supervisor *supervisor, struct fault *fault);
void prices_reload(struct supervisor *supervisor); /* SIGHUP */

/* phases.c: orderly stop */
void phases_stop(struct supervisor *supervisor);
void phases_advance(struct supervisor *supervisor); /* called whenever a child has ended */
