#include "base/secret.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 5000 };

static void a_secret_is_zeroed_page_aligned_memory(void **state)
{
    (void)state;
    uint8_t *secret = secret_alloc(SIZE);
    assert_non_null(secret);
    assert_int_equal((uintptr_t)secret % (size_t)sysconf(_SC_PAGESIZE), 0);
    for (size_t i = 0; i < SIZE; i++)
        assert_int_equal(secret[i], 0);
    memset(secret, 0xA5, SIZE);
    secret_wipe(secret + 1, SIZE - 2);
    assert_int_equal(secret[0], 0xA5);
    for (size_t i = 1; i < SIZE - 1; i++)
        assert_int_equal(secret[i], 0);
    assert_int_equal(secret[SIZE - 1], 0xA5);
    secret_free(secret, SIZE);
    secret_free(NULL, SIZE);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    assert_null(secret_alloc(0));
    assert_null(secret_alloc(SIZE_MAX));
    assert_null(secret_alloc(SIZE_MAX / 2));
}

/* Ends the child: 0 when the byte is gone, 1 when it can be read; or by SIGSEGV. */
static void look(const volatile uint8_t *secret)
{
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    _exit(*secret == 0xA5);
}

static void a_forked_child_does_not_have_the_secret(void **state)
{
    (void)state;
    uint8_t *secret = secret_alloc(SIZE);
    assert_non_null(secret);
    memset(secret, 0xA5, SIZE);
    pid_t child = fork();
    if (child == 0)
        look(secret);
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended) || (WIFEXITED(ended) && WEXITSTATUS(ended) == 0));
    assert_int_equal(secret[0], 0xA5);
    secret_free(secret, SIZE);
}

/* Whether the mapping at an address carries one of the flags of /proc/self/smaps. */
static bool has_flag(const void *address, const char *flag)
{
    char line[512], begin[32];
    bool inside = false, found = false;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    assert_non_null(smaps);
    snprintf(begin, sizeof begin, "%lx-", (unsigned long)(uintptr_t)address);
    while (fgets(line, sizeof line, smaps)) {
        if (strncmp(line, begin, strlen(begin)) == 0)
            inside = true;
        if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, flag) != NULL;
            break;
        }
    }
    fclose(smaps);
    return found;
}

static void a_secret_is_neither_dumped_nor_swapped(void **state)
{
    (void)state;
    uint8_t *secret = secret_alloc(SIZE);
    assert_non_null(secret);
    bool hidden = has_flag(secret, " dc"); /* DONTFORK: the memfd_secret kind, locked by nature */
    assert_true(hidden || has_flag(secret, " wf"));
    assert_true(has_flag(secret, " lo"));
    assert_true(hidden || has_flag(secret, " dd"));
    secret_free(secret, SIZE);
}

static void secrets_are_equal_only_byte_for_byte(void **state)
{
    (void)state;
    assert_true(secret_equal(SPAN("0123456789abcdef"), SPAN("0123456789abcdef")));
    assert_true(secret_equal((struct span){0}, SPAN("")));
    assert_false(secret_equal(SPAN("0123"), SPAN("01234")));
    for (size_t at = 0; at < 16; at++)
        for (int bit = 0; bit < 8; bit++) {
            uint8_t other[] = "0123456789abcdef";
            other[at] ^= (uint8_t)(1 << bit);
            assert_false(secret_equal(SPAN("0123456789abcdef"), (struct span){other, 16}));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_secret_is_zeroed_page_aligned_memory),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(a_forked_child_does_not_have_the_secret),
        cmocka_unit_test(a_secret_is_neither_dumped_nor_swapped),
        cmocka_unit_test(secrets_are_equal_only_byte_for_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
