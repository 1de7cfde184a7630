/* host.h: the host's side for the tests: a real bulkhead-agent, asked over a socketpair as an
 * ordinary process. In the lab (BULKHEAD_AGENT_GUEST) as the first process of a pid namespace, that
 * dials by vsock and owns the cgroups, as in a microVM. What it says is read with the codec of the
 * product; a wrong turn fails the test. */
#pragma once

#include "wire/agent.h"

#include <sys/types.h>

struct host {
    int fd;
    pid_t agent;
    struct buffer in;
    size_t taken; /* of in: the frame that was handed out last */
};

void host_start(struct host *host);
bool host_is_guest(void);
/* Closes, waits for the agent; nothing of it may be left. Returns its exit status. One that is a
 * guest has to dial again, with nothing running; then it is killed, and 0 is returned. */
int host_stop(struct host *host);

void host_send(struct host *host, struct span bytes); /* as they are */
void host_request(struct host *host, uint8_t type, uint32_t id, struct span payload);
void host_put(struct host *host, uint32_t id, enum agent_channel channel, struct span bytes);
void host_end(struct host *host, uint32_t id, enum agent_channel channel);
void host_credit(struct host *host, uint32_t id, enum agent_channel channel, uint32_t bytes);
void host_cancel(struct host *host, uint32_t id);
void host_signal(struct host *host, uint32_t id, uint8_t number);

/* The next frame, valid until the next call. Type 0: the connection has ended. Fails the test when
 * none comes for half a minute. */
struct agent_frame host_next(struct host *host);
struct agent_frame host_expect(struct host *host, uint8_t type, uint32_t id);
bool host_is_quiet(struct host *host, int timeout_ms); /* nothing comes for so long */
struct agent_done host_done(struct host *host, uint32_t id);
status host_ask(struct host *host, uint8_t type, uint32_t id, struct span payload);
bool host_has_ended(struct host *host); /* reads until the connection ends: false on a frame */

/* ---- commands ---- */

void host_exec(struct host *host, uint32_t id, const struct agent_exec *exec);
struct agent_exec host_shell(const char *script); /* /bin/sh -c; script has to live */

struct outcome {
    struct buffer out, error;
    struct agent_exited exited;
    status failed; /* by DONE instead */
    char detail[200];
    uint32_t pid;
};

/* Reads until the id's last frame, giving credit for all. */
void host_gather(struct host *host, uint32_t id, struct outcome *ret);
void host_run(struct host *host, const struct agent_exec *exec, struct outcome *ret);
void outcome_free(struct outcome *outcome);
bool outcome_says(const struct outcome *outcome, const char *out); /* exactly that */

/* Processes alive whose command line holds the word. */
int processes_with(const char *word);
void wait_for_no(const char *word); /* fails the test after half a minute */
