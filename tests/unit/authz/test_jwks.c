#include "vectors.h"

#include "authz/jwks.h"

static const char *path; /* of jwks.tsv */

static void check_line(char *line)
{
    char *columns[5], *rest = line;
    struct jwks jwks, before;
    struct fault fault = {"untouched"};
    memset(&jwks, 0x5A, sizeof jwks);
    before = jwks;
    line[strcspn(line, "\n")] = '\0';
    for (size_t i = 0; i < 5; i++)
        assert_non_null(columns[i] = strsep(&rest, "\t"));
    status code = jwks_read(&jwks, span_of_text(columns[4]), &fault);
    if (strcmp(columns[0], "accept") == 0) {
        if (code != OK)
            fail_msg("%s: %s", columns[3], fault.detail);
        assert_int_equal(jwks.count, strtol(columns[1], NULL, 10));
        assert_int_equal(jwks.skipped, strtol(columns[2], NULL, 10));
        for (uint32_t i = 0; i < jwks.count; i++)
            assert_int_equal(token_key_check(&jwks.keys[i], &fault), OK);
        return;
    }
    if (strcmp(status_code(code), columns[1]) != 0 || !strstr(fault.detail, columns[2]))
        fail_msg("%s: %s %s, expected %s", columns[3], status_code(code), fault.detail,
                 columns[1]);
    assert_memory_equal(&jwks, &before, sizeof jwks);
}

static void every_vector_is_taken_or_refused_as_it_says(void **state)
{
    (void)state;
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t size = 0, lines = 0;
    assert_non_null(file);
    for (; getline(&line, &size, file) > 0; lines++)
        check_line(line);
    assert_true(lines > 80);
    free(line);
    fclose(file);
}

static const char document[] =
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\","
    "\"x\":\"GNjYfFeBENMcmX66qIIUCbcYTDnULWvuCrgc7cO50sA\"},{\"kty\":\"EC\",\"use\":\"enc\"}]}";

static void a_key_of_a_set_is_the_one_that_the_issuer_signs_with(void **state)
{
    (void)state;
    struct jwks jwks;
    struct fault fault;
    assert_int_equal(jwks_read(&jwks, SPAN(document), &fault), OK);
    assert_int_equal(jwks.count, 1);
    assert_int_equal(jwks.skipped, 1);
    assert_string_equal(jwks.keys[0].id, "ed");
    assert_int_equal(jwks.keys[0].alg, TOKEN_EDDSA);
    assert_int_equal(jwks.keys[0].length, 32);
    assert_memory_equal(jwks.keys[0].public_key, vectors.ext1, 32);
}

static char *line_named(const char *name)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    assert_non_null(file);
    while (getline(&line, &size, file) > 0) {
        const char *at = strstr(line, name);
        if (at && at[-1] == '\t' && at[strlen(name)] == '\t') {
            fclose(file);
            return line;
        }
    }
    fail_msg("no vector %s", name);
    return NULL;
}

static void keys_have_the_form_that_tokens_are_verified_with(void **state)
{
    (void)state;
    struct jwks jwks;
    struct fault fault;
    char *line = line_named("one of each kind");
    line[strcspn(line, "\n")] = '\0';
    assert_int_equal(jwks_read(&jwks, span_of_text(strrchr(line, '\t') + 1), &fault), OK);
    assert_int_equal(jwks.keys[1].alg, TOKEN_ES256);
    assert_int_equal(jwks.keys[1].length, sizeof vectors.es256);
    assert_memory_equal(jwks.keys[1].public_key, vectors.es256, sizeof vectors.es256);
    assert_int_equal(jwks.keys[2].alg, TOKEN_RS256);
    assert_int_equal(jwks.keys[2].length, sizeof vectors.rs256);
    assert_memory_equal(jwks.keys[2].public_key, vectors.rs256, sizeof vectors.rs256);
    free(line);
    line = line_named("PS256 by name");
    line[strcspn(line, "\n")] = '\0';
    assert_int_equal(jwks_read(&jwks, span_of_text(strrchr(line, '\t') + 1), &fault), OK);
    assert_int_equal(jwks.keys[0].alg, TOKEN_PS256);
    free(line);
}

static void no_part_of_a_set_is_taken(void **state)
{
    (void)state;
    for (size_t length = 0; length < sizeof document - 1; length++) {
        struct jwks jwks;
        struct fault fault;
        assert_int_equal(jwks_read(&jwks, (struct span){(const uint8_t *)document, length},
                                   &fault), BAD_JSON);
    }
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_is_taken_or_refused_as_it_says),
        cmocka_unit_test(a_key_of_a_set_is_the_one_that_the_issuer_signs_with),
        cmocka_unit_test(keys_have_the_form_that_tokens_are_verified_with),
        cmocka_unit_test(no_part_of_a_set_is_taken),
    };
    struct fault fault;
    if (count != 3 || crypt_start(&fault))
        return 2;
    vectors_load(arguments[1]);
    path = arguments[2];
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vectors_free();
    return failed;
}
