/* inmate.h: the prisoner of the jail's tests: the test program itself, run again by jail_spawn
 * under the name "inmate-<role>". It obeys messages on JAIL_FD_SUPERVISOR. */
#pragma once

#include "jail/jail.h"

enum inmate_message {
    INMATE_BLANK = 1, /* inmate: jail_blank is done; body: what inmate_found saw */
    INMATE_CLOSE,     /* to it: u8 enum inmate_closing; descriptors: directories */
    INMATE_CLOSED,    /* inmate: u32 the ABI, 0 where it did not close */
    INMATE_ATTEMPT,   /* to it: u8 enum inmate_attempt */
    INMATE_RESULT,    /* inmate: u32: 0 or errno */
    INMATE_THREAD,    /* to it: u8 enum inmate_attempt, for a vCPU thread of the monitor */
    INMATE_FAULT,     /* inmate: text; it exits */
};

enum inmate_closing {
    CLOSE_WELL, CLOSE_NOT, CLOSE_BY_ID_ONLY,
    /* of the monitor: a thread that does not seal itself, one made before jail_enter, too many */
    CLOSE_UNSEALED_THREAD, CLOSE_EARLY_THREAD, CLOSE_MANY_THREADS,
};

enum { INMATE_VCPUS = 2 }; /* threads of the monitor beside the main one */

enum inmate_attempt {
    /* every role may */
    TRY_MEMORY, TRY_SECRET, TRY_MESSAGE, TRY_CLOCK, TRY_RANDOM, TRY_SORT, TRY_GROW, TRY_LOOP,
    TRY_ABORT,
    /* those that keep files may, within directory 0 */
    TRY_FILE, TRY_CLIMB, TRY_SYMLINK, TRY_ABSOLUTE, TRY_WRITE_SECOND, TRY_READ_SECOND,
    TRY_MAKE_DEVICE_NODE,
    /* the gateway alone may */
    TRY_ACCEPT, TRY_NODELAY,
    /* control alone may */
    TRY_MEMFD,
    /* the monitor alone may: the first, its vCPU threads; the second, its main thread */
    TRY_RUN, TRY_DISCARD, TRY_KICK, TRY_INTERRUPT, TRY_EVENT, TRY_TAKE_EVENT,
    /* the monitor may before it is sealed, with /dev/kvm (0), a VM (1) and a vCPU (2) */
    TRY_OPEN, TRY_NEW_MACHINE, TRY_NEW_MEMORY, TRY_NEW_VCPU, TRY_NEW_EVENT, TRY_NEW_THREAD,
    TRY_NEW_LINE, TRY_NEW_ROUTE, TRY_NEW_CPUID, TRY_KVM_EXTENSION, TRY_TUNNEL, TRY_RECORD,
    TRY_PROTECT, TRY_PROC_MEMORY, TRY_READ_FILE, TRY_SYNC, TRY_SET_FLAGS, TRY_PLAIN_SEND,
    TRY_SLEEP,
    TRY_CLONE3,
    /* nobody may */
    TRY_SOCKET, TRY_SOCKETPAIR, TRY_FORK, TRY_EXEC, TRY_EXECUTABLE_MAP, TRY_MAKE_EXECUTABLE,
    TRY_SHARED_MAP,
    TRY_PTRACE, TRY_MOUNT, TRY_UNSHARE, TRY_SETUID, TRY_PRCTL, TRY_IOCTL, TRY_BPF, TRY_KEYCTL,
    TRY_HANDLE, TRY_PIDFD, TRY_KILL, TRY_SIGNAL_OTHER, TRY_URING, TRY_USERFAULTFD, TRY_CHROOT,
    TRY_SECCOMP, TRY_NAMED_SEND, TRY_ODD_SOCKOPT, TRY_OLD_ABI, TRY_PERSONALITY, TRY_VM_READ,
    ATTEMPTS
};

/* Bits of INMATE_BLANK's u32. */
enum inmate_found {
    FOUND_ENVIRONMENT = 1, FOUND_DESCRIPTORS = 2, FOUND_FILES = 4,
    FOUND_PROC = 8, FOUND_WRITABLE_ROOT = 16, FOUND_OTHER_PID = 32
};

int inmate_main(const char *name);

int inmate_attempt(enum inmate_attempt attempt); /* 0 or errno; by whichever thread calls */
