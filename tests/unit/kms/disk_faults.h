/* disk_faults.h: stands between the key store and the disk (linked with --wrap): counts the calls,
 * makes the nth fail, or that and all after it, as if the process had died there. */
#pragma once

#include <stdbool.h>

enum disk_faults_mode {
    DISK_SOUND,
    DISK_FAILS_ONCE, /* the nth call fails */
    DISK_DIES,       /* the nth and every later one; a write leaves half of its bytes */
};

void disk_faults_arm(enum disk_faults_mode mode, unsigned nth);
/* Sound again; true when the armed call was reached. */
bool disk_faults_disarm(void);

unsigned disk_faults_fdatasyncs(void); /* since the last arm */

/* What was called since the last arm: "openat a.tmp\nfsync\n...". */
const char *disk_faults_trace(void);

/* Called before each fdatasync that is let through. */
extern void (*disk_faults_on_fdatasync)(void);
