/* sandbox_node.h: a node whose control is the test, for tests of sandboxes: monitors are real
 * processes in real jails; what they do wrong is fake_monitor.c's. */
#pragma once

#include "supervisor/sandboxes.h"

enum { PATIENCE_US = 20 * 1000 * 1000, UID_BASE = 700000000 };

extern char fake_path[PATH_MAX]; /* of fake_monitor */
extern struct fault fault;
extern struct supervisor node;
extern int control_end; /* what control reads and writes */

/* FAKE_MONITOR is the one argument. Not 0: exit with that, nothing can be tested here. */
int node_needs(int argc, char **argv);
int node_set_up(void **state);
int node_tear_down(void **state);
/* Its monitors all behave in this way. It has the image "base". */
void node_begin(const char *mode, enum microvm_state state);
void must(status code);
void write_file(int directory, const char *name, const char *content, mode_t mode);
void make_image(const char *name);
void turn_until(bool (*done)(void));
bool no_sandbox(void);
/* Ends what is left, and looks for whatever a sandbox could leave behind. */
void node_end(void);
void from_control(uint32_t type, uint32_t id, struct span body, const int *fds, uint32_t fd_count);
/* Returns who runs it: closing that ends it. */
int start(uint32_t id, const struct sandbox_spec *spec);
int start_with(uint32_t id, const struct sandbox_spec *spec, int console); /* -1: none */
void stop(uint32_t id, uint64_t sandbox);
bool hears(void);
/* The answer to id: its status; the cursor stands on the result. */
status answered(struct cursor *ret, uint32_t id);
uint64_t started(uint32_t id);

struct gone {
    uint64_t id, cpu_us, peak_kib, wall_us;
    uint8_t end;
    char detail[200];
};

struct gone gone(void); /* the next SANDBOX_GONE */
void refused(uint32_t id, status code, const char *part);
