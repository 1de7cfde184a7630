/* convict.h: what the runner's tests run where the agent would be: a static program, descriptor 0
 * the stream, 1 the line on which an agent says that it is there. It gets one byte, an attempt, and
 * answers with one int32: 0 or errno, or a count. */
#pragma once

enum attempt {
    /* nothing of these may be let through in any tier */
    TRY_MOUNT, TRY_MOUNT_API, TRY_PIVOT, TRY_HOST_SHADOW, TRY_HOST_ROOT, TRY_INIT_ROOT,
    TRY_SYSRQ, TRY_CORE_PATTERN, TRY_RAW_SOCKET, TRY_PACKET, TRY_MODULE, TRY_KEXEC,
    TRY_REBOOT, TRY_CLOCK, TRY_SWAP, TRY_HANDLE, TRY_SETNS, TRY_DIAL_HOST, TRY_ABSTRACT, TRY_BPF,
    TRY_PERF, TRY_OTHER_SIGNAL, TRY_AGENT_WRITE, TRY_HOST_MEMORY,
    /* gVisor's own kernel may serve these; the host's never */
    TRY_RAISE_LIMIT, TRY_DEVICE, TRY_UNSHARE, TRY_CLONE_NAMESPACE, TRY_PTRACE, TRY_VM_READ,
    TRY_KEYCTL, TRY_ADD_KEY, TRY_USERFAULTFD, TRY_URING, TRY_NETLINK, TRY_VSOCK, TRY_ALG,
    TRY_TYPE_KEYS, TRY_MEMFD, TRY_CLONE3_NAMESPACE, TRY_PAIR, TRY_SCTP, TRY_DCCP, TRY_PING,
    TRY_ULP, TRY_OUT_OF_BAND, TRY_SEMAPHORES, TRY_MESSAGES, TRY_SHARED, TRY_SHARED_ZERO,
    TRY_CORE_LIMIT, TRY_BOOT_LINE, TRY_PRESSURE, TRY_TEACH_BRANCHES,
    /* honest work */
    TRY_FILES, TRY_PROCESSES, TRY_THREADS, TRY_PIPE, TRY_TERMINAL, TRY_SOCKETS, TRY_ZEROS,
    TRY_LIMITS, TRY_LOCAL_SOCKET,
    /* bounds: the answer is how much */
    TRY_FORKS, TRY_FILL_DISK, TRY_ALLOCATE, TRY_FILL_DEVICES, TRY_FILL_SHARED, TRY_TERMINALS,
    /* bounds: there is no answer */
    TRY_HOG, TRY_SHARED_HOG, TRY_FILES_HOG, TRY_PAGE_TABLES, TRY_SOCKET_MEMORY, TRY_SPIN, TRY_LEAVE,
    ATTEMPTS
};
