#define _GNU_SOURCE
#include "agent/child.h"

#include "agent/agent.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { FD_REPORT = 3, FD_LINE = 4, FD_FREE = 5 };

/* ---- in the child ---- */

static void report(int fd, int error, const char *step)
{
    struct child_report words = {.pid = getpid(), .error = error};
    snprintf(words.step, sizeof words.step, "%s", step);
    ssize_t written = write(fd, &words, sizeof words);
    (void)written; /* an agent that is gone needs no report */
}

__attribute__((noreturn)) static void give_up(const char *step)
{
    report(FD_REPORT, errno, step);
    _exit(127);
}

/* Also the two signals that the C library keeps for itself and would not let go: who started the
 * agent may have left them ignored, and what is ignored outlives execve. */
static void default_signals(void)
{
    static const struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(void);
        uint64_t mask;
    } plain = {.handler = SIG_DFL}; /* as the kernel has it */
    for (int number = 1; number < NSIG; number++)
        syscall(SYS_rt_sigaction, number, &plain, NULL, sizeof plain.mask);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What protects the agent is not for those it runs. */
static void be_ordinary(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t written = write(fd, "0", 1);
        (void)written; /* where it cannot be raised it was not lowered */
        close(fd);
    }
    setpriority(PRIO_PROCESS, 0, 0);
    default_signals();
}

static void bound(const struct child_plan *plan)
{
    const struct rlimit data = {plan->memory_bytes, plan->memory_bytes};
    const struct rlimit processes = {plan->processes, plan->processes};
    const struct rlimit core = {0, 0};
    if (setrlimit(RLIMIT_CORE, &core)
        || (plan->cgroup < 0 && plan->memory_bytes && setrlimit(RLIMIT_DATA, &data))
        || (plan->cgroup < 0 && plan->processes && setrlimit(RLIMIT_NPROC, &processes)))
        give_up("limits");
}

/* In a user namespace that denies setgroups there are no others either. */
static void be_user(const struct user *user)
{
    if (geteuid() != 0)
        return;
    if (setgroups(user->group_count, user->groups) && (errno != EPERM || getgroups(0, NULL) > 0))
        give_up("groups");
    if (setresgid(user->gid, user->gid, user->gid) || setresuid(user->uid, user->uid, user->uid))
        give_up("user");
}

static void enter(const struct child_plan *plan)
{
    if (plan->directory) {
        if (chdir(plan->directory))
            give_up("directory");
        return;
    }
    if (plan->user->home[0] != '/' || chdir(plan->user->home))
        if (chdir("/"))
            give_up("directory");
}

__attribute__((noreturn)) static void run(const struct child_plan *plan)
{
    report(FD_REPORT, 0, "");
    setsid();
    if (plan->terminal && ioctl(0, TIOCSCTTY, 0))
        give_up("terminal");
    be_ordinary();
    bound(plan);
    be_user(plan->user);
    enter(plan);
    umask(022);
    environ = (char **)plan->environment; /* PATH is the command's own */
    execvp(plan->arguments[0], plan->arguments);
    give_up("program");
}

/* The descriptors by number, everything else gone. The kept ones are first moved out of the way
 * of each other. */
static void arrange(const struct child_plan *plan, int report_end, int line)
{
    const int wanted[] = {plan->in, plan->out, plan->error, report_end, line};
    enum { COUNT = sizeof wanted / sizeof *wanted };
    int high[COUNT];
    for (int i = 0; i < COUNT; i++)
        high[i] = wanted[i] < 0 ? -1 : fcntl(wanted[i], F_DUPFD_CLOEXEC, 64);
    for (int i = 0; i < COUNT; i++)
        if (high[i] >= 0 && dup3(high[i], i, i >= FD_REPORT ? O_CLOEXEC : 0) < 0)
            _exit(127);
    if (syscall(SYS_close_range, FD_FREE, ~0U, 0) == 0)
        return;
    for (int fd = FD_FREE; fd < 1024; fd++) /* a kernel without that call */
        close(fd);
}

/* ---- the shepherd ---- */

/* Until the program has ended orphans are reaped; the program stays a zombie until the agent has
 * killed the rest, so that its number, and its group's, stays taken. */
static void watch_over(pid_t program)
{
    for (;;) {
        siginfo_t about = {0};
        if (waitid(P_ALL, 0, &about, WEXITED | WNOWAIT)) {
            if (errno == EINTR)
                continue;
            _exit(1);
        }
        if (about.si_pid == program) {
            struct child_end end = {.code = about.si_code, .status = about.si_status};
            ssize_t written = write(FD_LINE, &end, sizeof end);
            (void)written; /* read will tell that the agent is gone */
            return;
        }
        waitpid(about.si_pid, NULL, 0);
    }
}

__attribute__((noreturn)) static void shepherd(const struct child_plan *plan)
{
    char word;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NAME, "shepherd");
    setsid();
    pid_t program = fork();
    if (program < 0)
        give_up("fork");
    if (program == 0) {
        close(FD_LINE);
        run(plan);
    }
    for (int fd = 0; fd <= FD_REPORT; fd++)
        close(fd);
    watch_over(program);
    while (read(FD_LINE, &word, 1) < 0 && errno == EINTR)
        ;
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    _exit(0);
}

/* ---- in the agent ---- */

static pid_t fork_into(int cgroup)
{
    struct clone_args arguments = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD,
                                   .cgroup = (unsigned int)cgroup};
    return cgroup < 0 ? fork() : (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

status child_start(struct child *ret, const struct child_plan *plan, struct fault *fault)
{
    int reports[2], line[2] = {-1, -1};
    if (pipe2(reports, O_CLOEXEC))
        return errno_status(errno, "pipe", fault);
    _cleanup_close_ int report_in = reports[0], report_out = reports[1];
    if (plan->cgroup < 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line))
        return errno_status(errno, "socketpair", fault);
    _cleanup_close_ int line_ours = line[0], line_theirs = line[1];
    pid_t pid = fork_into(plan->cgroup);
    if (pid < 0)
        return errno_status(errno, "fork", fault);
    if (pid == 0) {
        arrange(plan, report_out, line_theirs);
        if (plan->cgroup >= 0)
            run(plan);
        shepherd(plan);
    }
    *ret = (struct child){.pid = pid, .report = take_fd(&report_in), .line = take_fd(&line_ours)};
    return OK;
}
