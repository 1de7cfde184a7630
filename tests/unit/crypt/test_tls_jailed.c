/* After tls_warm_up a process that speaks TLS opens no file: certificates are read and connections
 * made under a filter that kills for less. In a child of its own. */
#include "tls_support.h"

#include <seccomp.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static bool close_jail(void)
{
    static const int allowed[] = {
        SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
        SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(getrandom), SCMP_SYS(exit_group),
        SCMP_SYS(getpid), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
        SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(close),
        SCMP_SYS(read), SCMP_SYS(write), /* the client's */
    };
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    bool done = filter != NULL;
    for (size_t i = 0; done && i < sizeof allowed / sizeof allowed[0]; i++)
        done = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0) == 0;
    done = done && seccomp_load(filter) == 0;
    seccomp_release(filter);
    return done;
}

/* Made before, where the client opens what it likes. */
struct prepared {
    struct pair pair;
    int ends[4];
    SSL_CTX *context;
};

static bool prepare(struct prepared *ret, const char *sort)
{
    make_pair(&ret->pair, sort, "one.example", 30);
    ret->context = SSL_CTX_new(TLS_client_method());
    for (int i = 0; i < 4; i += 2)
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ret->ends + i))
            return false;
    return ret->context != NULL;
}

static bool meet_jailed(const struct prepared *prepared, struct tls_server *server, int which,
                        int version)
{
    struct meeting meeting = {.outcome = AGAIN};
    struct fault fault;
    meeting.client = SSL_new(prepared->context);
    SSL_set_fd(meeting.client, prepared->ends[which]);
    SSL_set_max_proto_version(meeting.client, version);
    SSL_set_connect_state(meeting.client);
    if (tls_session_open(&meeting.session, server, prepared->ends[which + 1], &fault))
        return false;
    bool met = shake(&meeting) == OK && meeting.client_done;
    tls_shutdown(meeting.session);
    SSL_free(meeting.client);
    tls_session_free(meeting.session);
    return met;
}

static bool speak(const struct prepared *prepared)
{
    struct tls_server *server;
    struct fault fault;
    uint8_t keys[TLS_TICKET_KEY_BYTES];
    crypt_random(keys, sizeof keys);
    if (tls_server_create(&server, pem_span(&prepared->pair.certificate),
                          SPAN("no key, no service"), &fault) != BAD_FIELD
        || tls_server_create(&server, pem_span(&prepared->pair.certificate),
                             pem_span(&prepared->pair.key), &fault) != OK)
        return false;
    tls_server_tickets(server, keys, 1);
    bool met = meet_jailed(prepared, server, 0, TLS1_3_VERSION)
            && meet_jailed(prepared, server, 2, TLS1_2_VERSION);
    tls_server_free(server);
    return met && tls_server_create(&server, pem_span(&prepared->pair.certificate),
                                    pem_span(&prepared->pair.key), &fault) == OK;
}

static void every_sort_of_key_is_read_and_used_without_opening_a_file(void **state)
{
    (void)state;
    static const char *const sorts[] = {"P-256", "P-384", "ED25519", "RSA2048"};
    for (size_t i = 0; i < sizeof sorts / sizeof *sorts; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            static struct prepared prepared;
            if (start_tls(NULL) || !prepare(&prepared, sorts[i]) || !close_jail())
                _exit(2);
            syscall(SYS_exit_group, speak(&prepared) ? 0 : 1);
        }
        int ended;
        assert_int_equal(waitpid(child, &ended, 0), child);
        if (!WIFEXITED(ended) || WEXITSTATUS(ended))
            fail_msg("%s: %#x", sorts[i], (unsigned)ended);
    }
}

static void the_jail_of_these_tests_does_kill(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        syscall(SYS_exit_group, !close_jail() || access("/", F_OK) == 0 ? 0 : 1);
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sort_of_key_is_read_and_used_without_opening_a_file),
        cmocka_unit_test(the_jail_of_these_tests_does_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
