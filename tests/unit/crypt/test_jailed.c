/* After crypt_start the room must do with memory calls, futex and getrandom: the processes that use
 * it are jailed then. Each test starts the room in a child of its own and closes the jail there. */
#include "crypt/aead.h"
#include "crypt/note.h"
#include "crypt/openssl.h"
#include "support.h"

#include <seccomp.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool close_jail(void)
{
    static const int allowed[] = {
        SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
        SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(getrandom), SCMP_SYS(exit_group),
    };
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    bool done = filter != NULL;
    for (size_t i = 0; done && i < sizeof allowed / sizeof allowed[0]; i++)
        done = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0) == 0;
    done = done && seccomp_load(filter) == 0;
    seccomp_release(filter);
    return done;
}

static bool seal_and_open(void)
{
    uint8_t key[KEY_BYTES], page[4096] = {0}, nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES];
    struct aead *aead;
    struct fault fault;
    crypt_random(key, sizeof key);
    key_derive(key, key, SPAN("salt"), "bulkhead pages v1");
    if (aead_create(&aead, key, &fault))
        return false;
    for (int i = 0; i < 100; i++)
        aead_seal(page, nonce, tag, aead, SPAN_OF(page), SPAN("1"));
    bool opened = aead_open(page, aead, nonce, tag, SPAN_OF(page), SPAN("1"), &fault) == OK
               && aead_open(page, aead, nonce, tag, SPAN_OF(page), SPAN("1"), &fault) == CORRUPT;
    aead_free(aead);
    return opened;
}

static bool sign_and_open(void)
{
    uint8_t seed[SIGN_SEED_BYTES], key[SIGN_PUBLIC_BYTES], storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    struct checkpoint checkpoint = {.origin = "bulkhead/test", .size = 3}, opened;
    struct signer *signer;
    struct fault fault;
    crypt_random(seed, sizeof seed);
    if (signer_create(&signer, seed, &fault))
        return false;
    signer_public(key, signer);
    bool done = checkpoint_sign(&note, &checkpoint, "bulkhead", signer, &fault) == OK
             && checkpoint_open(&opened, buffer_span(&note), "bulkhead", key, &fault) == OK;
    storage[0] ^= 1;
    done = done
        && checkpoint_open(&opened, buffer_span(&note), "bulkhead", key, &fault) == CORRUPT;
    signer_free(signer);
    return done;
}

/* The generator of P-256, and any odd number of 2048 bits: keys for all that is asked of one. */
static struct span foreign_key(uint8_t storage[4 + FOREIGN_RSA_MIN_BYTES], enum foreign_alg alg)
{
    if (alg == FOREIGN_ES256) {
        from_hex(storage, FOREIGN_EC_BYTES,
                 "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                 "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5");
        return (struct span){storage, FOREIGN_EC_BYTES};
    }
    from_hex(storage, 4, "00010001");
    for (size_t i = 0; i < FOREIGN_RSA_MIN_BYTES; i++)
        storage[4 + i] = 0xc5;
    return (struct span){storage, 4 + FOREIGN_RSA_MIN_BYTES};
}

static bool load_foreign(enum foreign_alg alg)
{
    uint8_t storage[4 + FOREIGN_RSA_MIN_BYTES], signature[FOREIGN_RSA_MIN_BYTES] = {1};
    struct span key = foreign_key(storage, alg);
    struct foreign_verifier *verifier;
    struct fault fault;
    if (foreign_verifier_create(&verifier, alg, key, &fault) != OK)
        return false;
    size_t length = alg == FOREIGN_ES256 ? FOREIGN_EC_BYTES : FOREIGN_RSA_MIN_BYTES;
    struct span wrong = {signature, length};
    bool refused
        = foreign_verifier_check(verifier, SPAN("sample"), wrong, &fault) == UNAUTHENTICATED;
    foreign_verifier_free(verifier);
    return refused && foreign_self_test(alg, &fault) == OK;
}

/* The keys of charters come long after the jail has closed, and only then is an algorithm of theirs
 * used, and proven, for the first time. */
static bool check_es256(void)
{
    return load_foreign(FOREIGN_ES256);
}

static bool check_rs256(void)
{
    return load_foreign(FOREIGN_RS256);
}

static bool check_ps256(void)
{
    return load_foreign(FOREIGN_PS256);
}

static bool check_all_foreign(void)
{
    for (int i = 0; i < 100; i++)
        if (!check_ps256() || !check_es256() || !check_rs256())
            return false;
    return true;
}

static void run_jailed(bool (*work)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct fault fault;
        if (crypt_start(&fault) || !close_jail())
            _exit(2);
        syscall(SYS_exit_group, work() ? 0 : 1); /* sanitizers add calls of their own to _exit */
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), 0);
}

static void a_jailed_process_seals_and_opens(void **state)
{
    (void)state;
    run_jailed(seal_and_open);
}

static void a_jailed_process_signs_and_verifies(void **state)
{
    (void)state;
    run_jailed(sign_and_open);
}

static void a_jailed_process_loads_foreign_keys_and_verifies(void **state)
{
    (void)state;
    run_jailed(check_es256);
    run_jailed(check_rs256);
    run_jailed(check_ps256);
    run_jailed(check_all_foreign);
}

static bool open_a_file(void)
{
    return access("/", F_OK) == 0;
}

static void the_jail_of_these_tests_does_kill(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        syscall(SYS_exit_group, !close_jail() || open_a_file() ? 0 : 1);
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_jailed_process_seals_and_opens),
        cmocka_unit_test(a_jailed_process_signs_and_verifies),
        cmocka_unit_test(a_jailed_process_loads_foreign_keys_and_verifies),
        cmocka_unit_test(the_jail_of_these_tests_does_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
